"""The broker on Redis or Valkey: one multiplexed connection, scripts where races are decided."""

from broker.transports.redis.market import connect

__all__ = ["connect"]
