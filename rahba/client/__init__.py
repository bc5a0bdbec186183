"""The market from outside: what a program needs that shares nothing with it but the wire."""

from rahba.client.light import LightClient
from rahba.client.market import Market, MarketProblemError, MarketUnreachableError, verify_deal

__all__ = [
    "LightClient",
    "Market",
    "MarketProblemError",
    "MarketUnreachableError",
    "verify_deal",
]
