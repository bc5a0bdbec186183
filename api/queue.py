"""Which queue heavy jobs wait in: Celery's, unless the market's Redis is a cluster.

Celery speaks to one server and does not work on a Redis Cluster. Where nothing but the cluster was
named, the market does without workers: heavy jobs run in their hosts. Where somebody names a
cluster as the queue, they are told.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from api.settings import BadSettingError, next_database
from broker.errors import BrokerUnreachableError
from broker.transports.redis.dial import leads_to_cluster
from rahba.errors import LocalError

WITHOUT_WORKERS: Final = (
    "REDIS_URL is a cluster, on which Celery does not work: heavy jobs run in their hosts"
)
_PATIENCE_S: Final = 1.0
_REDIS: Final = frozenset({"redis", "rediss", "unix"})


class QueueOnClusterError(LocalError):
    """The queue of heavy jobs is a Redis Cluster, which Celery cannot use."""

    code = "queue_on_cluster"
    hint = (
        "set CELERY_BROKER_URL to a Redis or Valkey server that is no cluster; without it a "
        "market on a cluster has no workers, and heavy jobs run in their hosts"
    )


async def find_queue(redis_url: str, celery_broker_url: str) -> str | None:
    """Return the address of the queue; ``None`` if the market on ``redis_url`` does without.

    A server that does not answer is taken for a queue: senders and workers wait for it.

    Raises:
        QueueOnClusterError: a cluster was named as the queue.
    """
    if urlsplit(celery_broker_url).scheme not in _REDIS:
        return celery_broker_url or None
    try:
        clustered = await leads_to_cluster(celery_broker_url, patience_s=_PATIENCE_S)
    except BrokerUnreachableError:
        return celery_broker_url
    if not clustered:
        return celery_broker_url
    if not _follows_from(redis_url, celery_broker_url):
        raise QueueOnClusterError("Celery does not work on a Redis Cluster")
    return None


def _follows_from(redis_url: str, celery_broker_url: str) -> bool:
    """Say whether the queue's address is the one that settings derive from the market's."""
    try:
        return next_database(redis_url) == celery_broker_url
    except BadSettingError:
        return False
