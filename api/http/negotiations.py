"""Negotiations and deals as documents, read from the signed messages themselves.

Every message is opened again before it is shown: ``verified`` says whether its signature stands,
not whether somebody said so. A thread is folded by the same rules as both sides use
(``agents.negotiation.talk``), so a deal's agreement is computed here, not believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from agents.negotiation.agreement import agreement_of, check_agreement
from agents.negotiation.talk import Talk, replay
from broker.ports import ThreadState, ThreadView
from rahba.encoding import b64, canonical, sha256_hex, unb64
from rahba.errors import RahbaError
from rahba.messages import (
    Accept,
    Agreement,
    Counter,
    Message,
    Offer,
    Quote,
    Receipt,
    Withdraw,
    open_message,
    open_receipt,
)

Document = dict[str, object]

_RANK: Final[tuple[ThreadState, ...]] = (
    "settled",
    "delivered",
    "held",
    "agreed",
    "open",
    "failed",
    "decommitted",
    "expired",
    "closed",
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message of a transcript; ``message`` is ``None`` if it does not open."""

    raw: bytes
    message: Message | None

    @property
    def digest(self) -> str:
        """Return the digest of the envelope."""
        return sha256_hex(self.raw)


def spoken(view: ThreadView) -> list[Spoken]:
    """Open every message of a thread, as an auditor."""
    return [Spoken(raw, _opened(raw)) for raw in view.transcript]


def shown(view: ThreadView) -> ThreadView:
    """Return what everybody may see of a thread: quotes of an open tender stay sealed."""
    if view.facts.get("mode") != "tender" or view.state != "open":
        return view
    facts = {name: fact for name, fact in view.facts.items() if name != "asked"}
    kept = tuple(
        item.raw
        for item in spoken(view)
        if item.message is not None and not isinstance(item.message.body, Quote)
    )
    return replace(view, facts=facts, transcript=kept)


def summary(group: str, threads: list[ThreadView]) -> Document:
    """Describe one negotiation in a line: who wants what, how far it got, at what price."""
    threads = [shown(view) for view in threads]
    best = min(threads, key=lambda view: _RANK.index(view.state))
    facts = best.facts
    return {
        "group": group,
        "skill": facts.get("skill"),
        "mode": facts.get("mode"),
        "buyer": best.buyer,
        "sellers": [view.seller for view in threads],
        "state": best.state,
        "opened": _number(facts.get("opened_ms")),
        "deadline": _number(facts.get("deadline")),
        "seller": best.seller if best.state in _RANK[:4] else None,
        "agreement": facts.get("agreement") or None,
        "asked_fals": facts.get("asked") or None,
        "agreed_fals": facts.get("agreed") or None,
        "paid_fals": facts.get("paid") or None,
    }


def negotiation(group: str, threads: list[ThreadView], *, raw: bool) -> Document:
    """Describe one negotiation with every thread and message that everybody may see."""
    seen = [_thread(shown(view), raw=raw) for view in threads]
    return summary(group, threads) | {"threads": seen}


def deal(view: ThreadView) -> Document:
    """Describe what was agreed, who signed it, and what was delivered."""
    talk = talk_of(view)
    agreement = agreement_of(talk, talk.agreed) if talk.agreed and talk.cfp else None
    receipt = _receipt(view, talk)
    return {
        "digest": view.facts.get("agreement"),
        "group": view.facts.get("group"),
        "thread": view.id,
        "skill": view.facts.get("skill"),
        "mode": view.facts.get("mode"),
        "buyer": view.buyer,
        "seller": view.seller,
        "state": view.state,
        "rounds": rounds_of(messages_of(view)),
        "asked_fals": view.facts.get("asked") or None,
        "agreed_fals": view.facts.get("agreed") or None,
        "paid_fals": view.facts.get("paid") or None,
        "agreement": None if agreement is None else msgspec.to_builtins(agreement),
        "agreement_bytes": None if agreement is None else b64(canonical(agreement)),
        "signatures": _signatures(view, talk, agreement),
        "receipt": receipt,
        "hold_id": view.facts.get("hold") or None,
        "capture_tx": view.facts.get("tx") or None,
        "code": view.facts.get("code") or None,
    }


def messages_of(view: ThreadView) -> list[Message]:
    """Return the messages of a thread whose signatures stand, in order."""
    return [item.message for item in spoken(view) if item.message is not None]


def rounds_of(messages: list[Message]) -> int:
    """Return how many offers the side that made more of them made (1 for a posted price)."""
    offers = [item.sender for item in messages if isinstance(item.body, Quote | Counter)]
    return max((offers.count(sender) for sender in set(offers)), default=1)


def _opened(raw: bytes) -> Message | None:
    try:
        return open_message(raw, me=None, now_ms=0)
    except RahbaError:
        return None


def talk_of(view: ThreadView) -> Talk:
    """Fold a thread's transcript by the rules that both sides use."""
    messages = messages_of(view)
    talk = Talk(view.id, view.buyer, view.seller, posted=_posted(messages))
    return replay(talk, messages)


def _posted(messages: list[Message]) -> Offer | None:
    first = messages[0].body if messages else None
    return first.posted if isinstance(first, Accept) else None


def _thread(view: ThreadView, *, raw: bool) -> Document:
    heard = spoken(view)
    messages = [_message(view, item) for item in heard]
    document: Document = {
        "thread": view.id,
        "buyer": view.buyer,
        "seller": view.seller,
        "state": view.state,
        "facts": view.facts,
        "offers": _offers(view, heard),
        "messages": messages,
    }
    if raw:
        document["transcript"] = [b64(item.raw) for item in heard]
    return document


def _message(view: ThreadView, item: Spoken) -> Document:
    message = item.message
    if message is None:
        return {"digest": item.digest, "verified": False}
    body = message.body
    return {
        "id": message.id,
        "digest": item.digest,
        "seq": message.seq,
        "from": message.sender,
        "to": message.to,
        "side": _side(view, message),
        "type": message.type,
        "ts": message.ts,
        "reply_by": message.reply_by,
        "verified": True,
        "verdict": "OK",  # the transcript holds only what the thread's rules let stand
        "note": getattr(body, "note", "") or getattr(body, "text", ""),
        "code": getattr(body, "code", None) or getattr(body, "reason", None),
    }


def _offers(view: ThreadView, heard: list[Spoken]) -> list[Document]:
    messages = [item.message for item in heard if item.message is not None]
    taken = {m.body.offer for m in messages if isinstance(m.body, Accept)}
    withdrawn = {m.body.offer for m in messages if isinstance(m.body, Withdraw)}
    rounds = {"buyer": 0, "seller": 0}
    offers: list[Document] = []
    for message in messages:
        if not isinstance(message.body, Quote | Counter):
            continue
        side, offer = _side(view, message), message.body.offer
        rounds[side] += 1
        digest = offer.digest()
        offers.append(
            {
                "digest": digest,
                "message": message.id,
                "from": message.sender,
                "side": side,
                "round": rounds[side],
                "price": offer.issues.price,
                "issues": msgspec.to_builtins(offer.issues),
                "valid_until": offer.valid_until,
                "ts": message.ts,
                "verdict": "OK",
                "verified": True,
                "state": "accepted"
                if digest in taken
                else "withdrawn"
                if digest in withdrawn
                else "made",
            }
        )
    return offers


def _side(view: ThreadView, message: Message) -> str:
    return "buyer" if message.sender == view.buyer else "seller"


def _signatures(
    view: ThreadView, talk: Talk, agreement: Agreement | None
) -> dict[str, Document | None]:
    given = {"buyer": talk.buyer_signature, "seller": talk.seller_signature}
    parties = {"buyer": view.buyer, "seller": view.seller}
    return {
        side: None
        if signature is None
        else {
            "by": parties[side],
            "signature": signature,
            "verified": agreement is not None and _stands(agreement, parties[side], signature),
        }
        for side, signature in given.items()
    }


def _stands(agreement: Agreement, party: str, signature: str) -> bool:
    try:
        check_agreement(agreement, party, signature)
    except RahbaError:
        return False
    return True


def _receipt(view: ThreadView, talk: Talk) -> Document | None:
    if talk.result is None:
        return None
    envelope = talk.result.receipt
    try:
        receipt: Receipt = open_receipt(unb64(envelope), seller=view.seller)
    except RahbaError:
        return {"envelope": envelope, "verified": False, "body": None}
    matches = receipt.agreement == view.facts.get("agreement") and receipt.buyer == view.buyer
    return {
        "envelope": envelope,
        "verified": matches,
        "body": msgspec.to_builtins(receipt),
    }


def _number(text: str | None) -> int | None:
    return int(text) if text else None
