"""Signs the messages of one key: those of one tick of the loop together.

A signature costs as much as everything else about a message, and verifying one twice as much; a
busy key says several things at a time. What goes out by itself is signed by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice

from rahba.envelope import Signer
from rahba.messages import Message, seal_messages


class Pen:
    """Signs as ``signer`` for any number of tasks of one loop."""

    def __init__(self, signer: Signer) -> None:
        """Sign by this key."""
        self.signer = signer
        self._waiting: list[tuple[Sequence[Message], asyncio.Future[list[bytes]]]] = []

    async def seal(self, message: Message) -> bytes:
        """Sign a message with this tick's others."""
        (raw,) = await self.seal_all([message])
        return raw

    def seal_all(self, messages: Sequence[Message]) -> asyncio.Future[list[bytes]]:
        """Sign messages with this tick's others; returns their bytes in the same order."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._sign)
        sealed: asyncio.Future[list[bytes]] = loop.create_future()
        self._waiting.append((messages, sealed))
        return sealed

    def _sign(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            said = [message for messages, _ in waiting for message in messages]
            raws = iter(seal_messages(said, self.signer))
        except Exception:  # noqa: BLE001  # one of them cannot be signed; the others can
            for messages, sealed in waiting:
                self._sign_apart(messages, sealed)
            return
        for messages, sealed in waiting:
            theirs = list(islice(raws, len(messages)))
            if not sealed.done():  # its caller may have gone
                sealed.set_result(theirs)

    def _sign_apart(self, messages: Sequence[Message], sealed: asyncio.Future[list[bytes]]) -> None:
        if sealed.done():
            return
        try:
            sealed.set_result(seal_messages(messages, self.signer))
        except Exception as error:  # noqa: BLE001  # whoever waits is to hear of it
            sealed.set_exception(error)
