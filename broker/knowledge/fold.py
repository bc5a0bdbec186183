"""Everything the market's feed teaches, folded event by event; pure, bounded, resumable.

``Knowledge.note`` takes the events of the feed in order. Each is taken once: an id that is not
above ``last_id`` changes nothing, so a reader may begin again anywhere before where it stopped.
``dump`` and ``restore`` carry the whole state over a restart; the same events and answers give the
same bytes.

    accepted   who deals with whom about which skill       (kept until the job has ended)
    held       the job is ordered and paid for             from here on its end counts
    settled    price history, outcome, price and ring flags
    failed, closed   the outcome, if the job was ordered and it was not the buyer who left

The last three are claims (:mod:`broker.knowledge.endings`): they wait in the order in which they
were told, and count when ``Knowledge.count`` hears that the ledger bears them out, each hold once.
Time is the server's, from the ids of the events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from broker.events import check_event_id
from broker.knowledge.endings import Ending, read_settled
from broker.knowledge.flags import Board, Flag
from broker.knowledge.history import History
from broker.knowledge.outcomes import Outcomes
from broker.knowledge.outliers import Outlier, Window
from broker.knowledge.rings import Flows, Ring
from rahba.encoding import Json
from rahba.ids import is_digest
from rahba.messages import Event
from rahba.money import format_rhb, wire_fals

KINDS: Final = frozenset({"accepted", "held", "settled", "failed", "closed"})
MAX_SKILLS: Final = 256
MAX_JOBS: Final = 8_192
MAX_WAITING: Final = 4_096
MAX_HOLDS: Final = 16_384
BEGINNING: Final = "0-0"


class Notice(msgspec.Struct, frozen=True):
    """A flag to be told on the feed: the event's kind and data, and its name among notices.

    The ``name`` is the same in every process that folds the same feed, so that one can tell it for
    all.
    """

    name: str
    kind: str
    data: dict[str, Json]


class Job(msgspec.Struct, array_like=True):
    """A deal under way."""

    skill: str
    buyer: str
    seller: str
    ordered: bool = False
    agreement: str = ""
    hold: str = ""


class Skill(msgspec.Struct):
    """What is known of one skill's prices."""

    history: History = msgspec.field(default_factory=History)
    window: Window = msgspec.field(default_factory=Window)


class Knowledge(msgspec.Struct):
    """The state of the fold.

    At most ``MAX_SKILLS`` skills are known; those of the fewest deals go first, so that skills made
    up for the purpose push out each other and nothing that is traded. Of the endings that ``wait``
    for the ledger the oldest stay: while it is away, nothing true can be told of new payments.
    ``counted`` are the holds whose endings counted lately.
    """

    last_id: str = BEGINNING
    skills: dict[str, Skill] = {}
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)
    flows: Flows = msgspec.field(default_factory=Flows)
    board: Board = msgspec.field(default_factory=Board)
    jobs: dict[str, Job] = {}
    waiting: list[Ending] = []
    counted: dict[int, bool] = {}

    def note(self, event_id: str, event: Event) -> None:
        """Take in one event. What is malformed teaches nothing.

        Raises:
            BadCursorError: the id has not the form of one.
        """
        check_event_id(event_id)
        if _place(event_id) <= _place(self.last_id):
            return
        self.last_id = event_id
        data, at_ms = event.data, _place(event_id)[0]
        if event.kind not in KINDS or not isinstance(data.get("thread"), str):
            return
        match event.kind:
            case "accepted":
                self._accepted(data)
            case "held":
                self._held(data)
            case "settled":
                job = self.jobs.pop(str(data["thread"]), None)
                ordered = job is not None and job.ordered
                self._set_aside(read_settled(data, at_ms=at_ms, counts=ordered))
            case _:
                self._set_aside(self._failed(data, at_ms=at_ms))

    def count(self, borne_out: Sequence[bool]) -> list[Notice]:
        """Take the answers for the first of those that wait; returns what is to be told."""
        answered, self.waiting = self.waiting[: len(borne_out)], self.waiting[len(borne_out) :]
        return [
            notice
            for ending, true in zip(answered, borne_out, strict=True)
            if true and self._is_new(ending)
            for notice in self._learn(ending)
        ]

    def dump(self) -> bytes:
        """Return the state as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def restore(cls, raw: bytes) -> Knowledge:
        """Return the state that was dumped; an empty one if the bytes are of another version."""
        try:
            return msgspec.msgpack.decode(raw, type=cls)
        except msgspec.DecodeError:
            return cls()

    @property
    def is_full(self) -> bool:
        """Say whether no more endings can wait: what is read on now is not counted."""
        return len(self.waiting) >= MAX_WAITING

    def _accepted(self, data: dict[str, Json]) -> None:
        skill, buyer, seller = (data.get(name) for name in ("skill", "buyer", "seller"))
        if isinstance(skill, str) and isinstance(buyer, str) and isinstance(seller, str):
            thread, agreement = str(data["thread"]), data.get("agreement")
            self.jobs.pop(thread, None)
            self.jobs[thread] = Job(skill, buyer, seller, agreement=str(agreement))
            if len(self.jobs) > MAX_JOBS:
                del self.jobs[next(iter(self.jobs))]

    def _held(self, data: dict[str, Json]) -> None:
        job = self.jobs.get(str(data["thread"]))
        if job is not None:
            job.ordered, job.hold = True, str(data.get("hold"))

    def _failed(self, data: dict[str, Json], *, at_ms: int) -> Ending | None:
        job = self.jobs.pop(str(data["thread"]), None)
        if job is None or not job.ordered or data.get("from") == job.buyer:
            return None
        if not (is_digest(job.hold) and is_digest(job.agreement)):
            return None
        return Ending(at_ms, job.skill, job.buyer, job.seller, job.agreement, job.hold)

    def _set_aside(self, ending: Ending | None) -> None:
        if ending is not None and not self.is_full:
            self.waiting.append(ending)

    def _is_new(self, ending: Ending) -> bool:
        """Note an ending as counted; false if it was: what is told twice was paid once."""
        name = int(ending.hold[:15], 16) << 1 | (ending.paid_fals is not None)
        if name in self.counted:
            return False
        self.counted[name] = True
        if len(self.counted) > MAX_HOLDS:
            del self.counted[next(iter(self.counted))]
        return True

    def _learn(self, deal: Ending) -> list[Notice]:
        price, at_ms = deal.paid_fals, deal.at_ms
        if deal.counts:
            delivered = price is not None
            self.outcomes.note(deal.skill, deal.seller, deal.buyer, delivered=delivered)
        if price is None:
            return []
        known = self.skills.get(deal.skill) or self._new_skill(deal.skill)
        known.history.note(at_ms, price)
        odd = known.window.note(price)
        ring = self.flows.note(deal.buyer, deal.seller, price)
        notices = []
        if odd is not None and (flag := self._odd(deal, odd, at_ms)):
            notices.append(_odd_notice(flag, deal, odd))
        if ring is not None and (flag := self._circular(deal, ring, at_ms)):
            notices.append(_ring_notice(flag, ring))
        return notices

    def _new_skill(self, name: str) -> Skill:
        if len(self.skills) >= MAX_SKILLS:
            rank = {
                skill: (known.history.deals, known.history.last_ms)
                for skill, known in self.skills.items()
            }
            del self.skills[min(rank, key=lambda skill: rank[skill])]
        self.skills[name] = Skill()
        return self.skills[name]

    def _odd(self, deal: Ending, odd: Outlier, at_ms: int) -> Flag | None:
        times = odd.price / odd.median if odd.z > 0 else odd.median / max(odd.price, 1)
        way = "above" if odd.z > 0 else "below"
        return self.board.raise_flag(
            "price",
            (deal.seller, deal.buyer),
            skill=deal.skill,
            agreement=deal.agreement,
            reason=f"a deal at {format_rhb(odd.price)} RHB, {times:.1f} times {way} the median "
            f"{format_rhb(odd.median)} of the last {odd.deals} (robust z {odd.z:.1f})",
            score=odd.z,
            at_ms=at_ms,
        )

    def _circular(self, deal: Ending, ring: Ring, at_ms: int) -> Flag | None:
        return self.board.raise_flag(
            "ring",
            ring.members,
            skill="",
            agreement=deal.agreement,
            reason=f"{format_rhb(ring.circulated)} RHB went round among {len(ring.members)} keys "
            f"in {ring.deals} deals, {ring.share:.0%} or more of what each pays and is paid",
            score=ring.share,
            at_ms=at_ms,
        )


def _odd_notice(flag: Flag, deal: Ending, odd: Outlier) -> Notice:
    data: dict[str, Json] = {
        "agreement": deal.agreement,
        "skill": deal.skill,
        "buyer": deal.buyer,
        "seller": deal.seller,
        "paid": wire_fals(odd.price),
        "median": wire_fals(odd.median),
        "deals": odd.deals,
        "z_thousandths": round(1_000 * flag.score),
        "until": flag.until_ms,
        "reason": flag.reason,
    }
    return Notice(f"price:{deal.agreement}", "anomaly.price", data)


def _ring_notice(flag: Flag, ring: Ring) -> Notice:
    data: dict[str, Json] = {
        "agents": list(ring.members),
        "deals": ring.deals,
        "circulated": wire_fals(ring.circulated),
        "share_thousandths": round(1_000 * flag.score),
        "agreement": flag.agreement,
        "until": flag.until_ms,
        "reason": flag.reason,
    }
    return Notice(f"ring:{flag.agreement}", "anomaly.ring", data)


def _place(event_id: str) -> tuple[int, int]:
    head, _, tail = event_id.partition("-")
    return int(head), int(tail)
