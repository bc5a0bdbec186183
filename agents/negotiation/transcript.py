"""What was said in a negotiation, as evidence for anybody: signed, linked and complete.

* The form is the messages themselves, one signed envelope a line, in the order in which the broker
  let them stand; the threads of one negotiation follow each other.
* Each message counts its sender's words (``seq``) and names the last message that its sender knew
  (``prev``): none can be left out or put in between others, and none can be moved. What is cut off
  at the end shows in ``head`` only, so whoever keeps a transcript keeps its head.
* What was agreed is computed from the messages, by the rules that both sides go by, and both
  signatures on it are verified. No broker, ledger or gateway is asked.

    checked = check_transcript(path.read_bytes())
    checked[0].agreement.digest, checked[0].head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agents.negotiation.agreement import SignedAgreement, agreement_of, both_signed
from agents.negotiation.talk import Phase, Talk, replay
from rahba.encoding import sha256_hex
from rahba.errors import BadInputError, RahbaError, TooLargeError
from rahba.messages import Accept, Message, open_message

MAX_TRANSCRIPT_BYTES: Final = 64 * 1024 * 1024
MAX_THREADS: Final = 256
MAX_MESSAGES: Final = 10_000


class BadTranscriptError(BadInputError):
    """A transcript does not hold: a message is missing, changed, moved or was never said."""

    code = "bad_transcript"
    hint = "what does not hold here proves nothing; ask the other side for its own copy"


@dataclass(frozen=True, slots=True)
class Checked:
    """One thread that holds: who spoke, how far it got, and what was agreed, if anything.

    ``head`` is the digest of the last message, which through its links stands for all.
    """

    thread: str
    group: str | None
    buyer: str
    seller: str
    messages: int
    phase: Phase
    head: str
    agreement: SignedAgreement | None


def write_transcript(threads: list[tuple[bytes, ...]]) -> bytes:
    """Return the threads of one negotiation as a file."""
    return b"".join(raw + b"\n" for thread in threads for raw in thread)


def check_transcript(content: bytes) -> list[Checked]:
    """Check every message and link of a transcript; returns its threads in their order.

    Raises:
        BadTranscriptError: it does not hold; ``facts["line"]`` says where (from 1).
        TooLargeError: it is over a limit of size or number.
    """
    if len(content) > MAX_TRANSCRIPT_BYTES:
        raise TooLargeError("transcript too large", limit_bytes=MAX_TRANSCRIPT_BYTES)
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    if len(lines) > MAX_MESSAGES:
        raise TooLargeError("too many messages", limit=MAX_MESSAGES)
    threads: dict[str, _Thread] = {}
    for number, raw in enumerate(lines, 1):
        try:
            message = open_message(raw, me=None, now_ms=0)
            if message.thread not in threads:
                if len(threads) >= MAX_THREADS:
                    raise TooLargeError("too many threads", limit=MAX_THREADS)
                threads[message.thread] = _Thread(message)
            threads[message.thread].take(message, sha256_hex(raw))
        except RahbaError as error:
            raise BadTranscriptError(
                f"line {number}: {error.message}", line=number, reason=error.code
            ) from error
    if not threads:
        raise BadTranscriptError("nothing was said", line=1)
    try:
        return [thread.checked() for thread in threads.values()]
    except RahbaError as error:
        raise BadTranscriptError(
            f"the agreement does not hold: {error.message}", line=len(lines), reason=error.code
        ) from error


class _Thread:
    """One thread as far as it was read."""

    def __init__(self, first: Message) -> None:
        posted = first.body.posted if isinstance(first.body, Accept) else None
        self._talk = Talk(first.thread, first.sender, first.to, posted=posted)
        self._places: dict[str, int] = {}
        self._known = {first.sender: -1, first.to: -1}  # the place of the last that each knew
        self._said = {first.sender: 0, first.to: 0}
        self._ids: set[str] = set()
        self._head = ""

    def take(self, message: Message, digest: str) -> None:
        """Read the next message."""
        sender = message.sender
        if {sender, message.to} != set(self._known):
            raise BadTranscriptError("a stranger speaks")
        if message.seq != self._said[sender] + 1 or message.id in self._ids:
            raise BadTranscriptError("a message is missing before this one, or it stands twice")
        place = -1 if message.prev is None else self._places.get(message.prev)
        if place is None or place < self._known[sender] or (place < 0 and self._places):
            raise BadTranscriptError("it does not follow from what its sender knew")
        self._talk = replay(self._talk, [message])
        self._said[sender] += 1
        self._ids.add(message.id)
        self._known[sender] = self._places[digest] = len(self._places)
        self._head = digest

    def checked(self) -> Checked:
        """Return what was said; an agreement must bear both signatures."""
        talk = self._talk
        signed = None
        if talk.agreed is not None and talk.buyer_signature and talk.seller_signature:
            signed = both_signed(
                agreement_of(talk, talk.agreed),
                buyer=talk.buyer_signature,
                seller=talk.seller_signature,
            )
        return Checked(
            thread=talk.thread,
            group=None if talk.cfp is None else talk.cfp.group,
            buyer=talk.buyer,
            seller=talk.seller,
            messages=len(self._places),
            phase=talk.phase,
            head=self._head,
            agreement=signed,
        )
