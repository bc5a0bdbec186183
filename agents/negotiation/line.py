"""One side's end of a thread: numbers, links and signs what it says, and keeps the talk.

A side that restarts resumes from the broker's transcript and goes on with the next number.
"""

from __future__ import annotations

import msgspec

from agents.negotiation.talk import Talk, hear, replay
from rahba.clock import Clock
from rahba.envelope import Signer
from rahba.ids import Ids
from rahba.messages import Body, Message, Offer, message_digest, open_message, seal_message


class Line:
    """The thread between ``signer`` and one other party. ``talk`` is what has been said."""

    def __init__(self, talk: Talk, signer: Signer, *, clock: Clock, ids: Ids) -> None:
        """Start at the beginning of a thread; see :meth:`resume` for later."""
        self.talk = talk
        self.side = talk.side_of(signer.did)
        self.peer = talk.seller if self.side == "buyer" else talk.buyer
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._seq = 0
        self._heard = 0
        self._prev: str | None = None

    @classmethod
    def resume(
        cls,
        talk: Talk,
        transcript: tuple[bytes, ...],
        signer: Signer,
        *,
        clock: Clock,
        ids: Ids,
        posted: Offer | None = None,
    ) -> Line:
        """Carry on after ``transcript`` (as the broker recorded it)."""
        if posted is not None:
            talk = msgspec.structs.replace(talk, posted=posted)
        line = cls(talk, signer, clock=clock, ids=ids)
        messages = [open_message(raw, me=None, now_ms=0) for raw in transcript]
        line.talk = replay(line.talk, messages)
        line._seq = sum(message.sender == signer.did for message in messages)
        line._heard = len(messages) - line._seq
        line._prev = message_digest(transcript[-1]) if transcript else None
        return line

    def write(self, body: Body, *, reply_by: int) -> bytes:
        """Sign the next message; nothing is noted before :meth:`said`."""
        return seal_message(self.next(body, reply_by=reply_by), self._signer)

    def next(self, body: Body, *, reply_by: int) -> Message:
        """Return the next message, unsigned; nothing is noted before :meth:`said`."""
        return Message(
            id=self._ids.new(),
            thread=self.talk.thread,
            seq=self._seq + 1,
            prev=self._prev,
            sender=self._signer.did,
            to=self.peer,
            ts=self._clock.now_ms(),
            reply_by=reply_by,
            body=body,
        )

    def said(self, body: Body, raw: bytes) -> None:
        """Note that the broker let this message of ours stand."""
        self.talk = hear(self.talk, self.side, body)
        self._seq += 1
        self._prev = message_digest(raw)

    def heard(self, message: Message, raw: bytes) -> None:
        """Note a message of the other side.

        Raises:
            OutOfPlaceError: it does not belong here; nothing is noted.
        """
        self.talk = hear(self.talk, self.talk.side_of(message.sender), message.body)
        self._heard = message.seq
        self._prev = message_digest(raw)

    def is_next(self, message: Message) -> bool:
        """Say whether the other side's message follows on all that is noted here.

        Its link says so: whoever wrote it had seen our last word, and nothing else since.
        """
        return message.seq == self._heard + 1 and message.prev == self._prev
