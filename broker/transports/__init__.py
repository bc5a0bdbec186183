"""The broker's transports: Redis for the market, memory for simulations."""
