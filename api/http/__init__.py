"""The HTTP gateway: every route of the market, its errors, limits and event streams."""
