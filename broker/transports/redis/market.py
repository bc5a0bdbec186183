"""Builds the broker on a Redis server or a Redis Cluster: ``connect(url, clock)``."""

from __future__ import annotations

from broker.bundle import Broker
from broker.directory import CardDirectory, Search
from broker.events import FeedLimits
from broker.mailboxes import MailboxLimits
from broker.stores.texts import make_text
from broker.threads import ThreadDesk, ThreadLimits
from broker.transports.redis.dial import dial
from broker.transports.redis.directory import RedisCardStore
from broker.transports.redis.feed import RedisFeed
from broker.transports.redis.mailbox import RedisMailbox
from broker.transports.redis.threads import RedisThreadStore
from rahba.clock import Clock


async def connect(
    url: str,
    clock: Clock,
    *,
    limits: MailboxLimits | None = None,
    feed_limits: FeedLimits | None = None,
    thread_limits: ThreadLimits | None = None,
    patience_s: float = 3.0,
    search: Search | None = None,
) -> Broker:
    """Return a broker on the server, or the cluster of the node, at ``url``: Redis 6.2 or later.

    Raises:
        BrokerUnreachableError: nothing answers there within ``patience_s``.
        BadRedisUrlError: ``url`` is no Redis address, or names a database of a cluster.
        RedisTooOldError: the server is too old.
    """
    wire = await dial(url, patience_s=patience_s)
    try:
        await wire.check()
    except BaseException:
        await wire.close()
        raise
    feed = RedisFeed(wire, clock, feed_limits)
    mailbox = RedisMailbox(wire, limits)
    directory = CardDirectory(
        RedisCardStore(wire),
        feed=feed,
        clock=clock,
        make_text=make_text,
        search=search,
    )
    store = RedisThreadStore(wire, feed, clock, mailboxes=limits, limits=thread_limits)
    threads = ThreadDesk(store, directory=directory, clock=clock)

    async def close() -> None:
        await directory.close()
        await wire.close()

    return Broker(directory, mailbox, threads, feed, close)
