"""A second ledger process: it follows the log, and takes over when whoever writes is gone.

* It reads what the writer appends and carries it out, roots compared, so that nothing is left to
  replay when its turn comes. It writes nothing meanwhile.
* The place of a process that ended is free at once. The place of one that is there and does not
  move (no entry, no beat for ``lease_s``) is stolen; should it wake up, it finds itself fenced.
* Only time in which the standby itself looked counts: after a sleep of the whole machine nobody
  is taken for dead who only slept, too.
* The writer's part is :func:`beating`, from when it acquired the store.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NoReturn

from wallet.errors import StoreError, StoreLockedError, StoreVersionError
from wallet.ports import Pulse, Store
from wallet.recovery import follow, replayed
from wallet.replay import Replay

BEAT_S: Final = 0.5
LEASE_S: Final = 4.0
POLL_S: Final = 0.2

logger = logging.getLogger("rahba.ledger")


async def take_over(
    store: Store, *, poll_s: float = POLL_S, lease_s: float = LEASE_S
) -> Replay | None:
    """Follow the log until ``store`` is acquired.

    Returns the replay of all that was read by then (``None`` of an empty log), to be handed to
    :meth:`wallet.service.Sequencer.open`.

    Raises:
        LedgerCorruptError: the log is not what it says.
        StoreVersionError: another release writes it.
    """
    replay: Replay | None = None
    seen, silent_s = (Pulse(0, 0), 0), 0.0
    while True:
        try:
            replay = await asyncio.to_thread(_caught_up, store, replay)
            now = (await asyncio.to_thread(store.pulse), replay.size if replay is not None else 0)
            silent_s, seen = (silent_s + poll_s if now == seen else 0.0), now
            await asyncio.to_thread(store.acquire, steal=silent_s >= lease_s)
        except StoreLockedError:
            pass
        except StoreVersionError:
            raise
        except StoreError as error:
            logger.warning("the standby cannot look at the ledger: %s", error)
            silent_s = 0.0
        else:
            logger.warning("the standby takes over at size %d", now[1])
            return replay
        await asyncio.sleep(poll_s)


async def beating(store: Store, *, every_s: float = BEAT_S) -> NoReturn:
    """Let whoever watches see that this writer lives, until it is cancelled.

    Raises:
        FencedError: somebody took over; this process must end.
        StoreError: the store cannot be reached.
    """
    while True:
        await asyncio.to_thread(store.beat)
        await asyncio.sleep(every_s)


def _caught_up(store: Store, replay: Replay | None) -> Replay | None:
    if replay is not None:
        follow(store, replay)
        return replay
    return replayed(store)[0] if store.size() else None
