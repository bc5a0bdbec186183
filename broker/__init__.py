"""The broker: who is there, and how messages travel."""

from broker.bundle import Broker

__all__ = ["Broker"]
