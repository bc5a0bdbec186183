"""The four parts of a broker in one hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from broker.ports import Directory, Feed, Mailbox, Threads


@dataclass(frozen=True, slots=True)
class Broker:
    """Who is there, and how messages travel; made by a transport's ``connect``."""

    directory: Directory
    mailbox: Mailbox
    threads: Threads
    feed: Feed
    close: Callable[[], Awaitable[None]]
