"""What everybody may see of a negotiation."""

from __future__ import annotations

from api.http.negotiations import negotiation
from broker.ports import ThreadState, ThreadView
from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.messages import Body, Cfp, Issues, Message, Mode, Offer, Quote, seal_message

BUYER, SELLER = Signer(b"\x01" * 32), Signer(b"\x02" * 32)
THREAD, GROUP, NOW = "1" * 32, "2" * 32, 1_700_000_000_000


def said(by: Signer, to: Signer, body: Body) -> bytes:
    message = Message(
        id=by.did[-1].encode().hex().ljust(32, "0"),
        thread=THREAD,
        seq=1,
        prev=None,
        sender=by.did,
        to=to.did,
        ts=NOW,
        reply_by=NOW + 1_000,
        body=body,
    )
    return seal_message(message, by)


def thread(mode: Mode, state: ThreadState) -> ThreadView:
    opening = Cfp(
        group=GROUP,
        skill="text.echo",
        mode=mode,
        input_digest="0" * 64,
        input_bytes=2,
        deadline=NOW + 5_000,
    )
    issues = Issues(price="777000")
    quote = Quote(Offer(skill="text.echo", issues=issues, valid_until=NOW + 5_000, salt="s"))
    return ThreadView(
        id=THREAD,
        buyer=BUYER.did,
        seller=SELLER.did,
        state=state,
        facts={"group": GROUP, "skill": "text.echo", "mode": mode, "asked": "777000"},
        transcript=(said(BUYER, SELLER, opening), said(SELLER, BUYER, quote)),
    )


def test_the_quotes_of_an_open_tender_are_nobodys_to_see() -> None:
    view = thread("tender", "open")
    told = negotiation(GROUP, [view], raw=True)
    assert "777000" not in str(told)
    assert b64(view.transcript[1]) not in str(told)
    assert b64(view.transcript[0]) in str(told)


def test_the_quotes_of_a_decided_tender_and_of_a_bargain_are_shown() -> None:
    for view in (thread("tender", "closed"), thread("bargain", "open")):
        told = negotiation(GROUP, [view], raw=True)
        assert told["asked_fals"] == "777000"
        assert b64(view.transcript[1]) in str(told)
