"""What the market's own feed teaches: prices, whom to ask, what looks odd; pure."""
