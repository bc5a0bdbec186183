"""Finds out what is at an address: one server, or a node of a cluster. ``await dial(url)``."""

from __future__ import annotations

from dataclasses import replace

from broker.transports.redis.cluster import ClusterWire
from broker.transports.redis.wire import Address, BadRedisUrlError, Wire


async def dial(url: str, *, patience_s: float = 3.0) -> Wire:
    """Return the wire for what is at ``url``; whoever asked for it closes it.

    Raises:
        BrokerUnreachableError: nothing answers there within ``patience_s``.
        BadRedisUrlError: ``url`` is no Redis address, or names a database of a cluster.
    """
    address = Address.of(url)
    if not await leads_to_cluster(url, patience_s=patience_s):
        return Wire(address, patience_s=patience_s)
    if address.database:
        raise BadRedisUrlError("a Redis Cluster has database 0 alone", database=address.database)
    return ClusterWire(address, patience_s=patience_s)


async def leads_to_cluster(url: str, *, patience_s: float = 3.0) -> bool:
    """Say whether the server at ``url`` is a node of a cluster; errors as of :func:`dial`."""
    probe = Wire(replace(Address.of(url), database=0), patience_s=patience_s)
    try:
        said: bytes = await probe.call("INFO", "cluster")
    finally:
        await probe.close()
    return b"cluster_enabled:1" in said
