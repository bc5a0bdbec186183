"""Every error of the market as ``application/problem+json`` (RFC 9457): one table, by code.

* The table is keyed by the stable ``code`` of an error class, so that a room can add a leaf
  without the gateway importing it; a test walks all classes and holds table and docs equal to them.
* ``type`` is a path on this gateway (``/problems/<code>``) that explains the code.
* ``facts`` carries the typed facts of the error; an unforeseen error says nothing of its inside.

    >>> problem_of(NotYoursError("the call is of another key")).status
    403
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import orjson
from starlette.responses import Response

from api.http.errors import HttpError
from rahba.errors import Fact, RahbaError

PROBLEM_JSON: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """How one code looks over HTTP."""

    status: int
    title: str


KINDS: Final[dict[str, Kind]] = {
    # the gateway's own
    "internal": Kind(500, "Something broke inside"),
    "not_found": Kind(404, "There is nothing here"),
    "method_not_allowed": Kind(405, "This method has no meaning here"),
    "unsupported_media_type": Kind(415, "The body is of a type that is not read here"),
    "headers_too_large": Kind(431, "The header fields exceed their limit"),
    "query_too_long": Kind(414, "The address exceeds its limit"),
    "stream_broken": Kind(500, "A defect ended a stream"),
    "stream_idle": Kind(408, "Nothing came on an open stream"),
    "slow_body": Kind(408, "The body did not arrive in time"),
    "key_required": Kind(401, "An API key is required"),
    "key_unknown": Kind(401, "This API key is not known"),
    "key_expired": Kind(401, "This API key is past its time"),
    "key_revoked": Kind(401, "This API key was revoked"),
    "not_yours": Kind(403, "This belongs to somebody else"),
    "rate_limited": Kind(429, "Too many requests"),
    "too_many_streams": Kind(503, "Too many event streams are open"),
    "too_many_calls": Kind(429, "Too many calls of this key are running"),
    "in_progress": Kind(409, "The first request with this Idempotency-Key is still running"),
    "key_reused": Kind(422, "This Idempotency-Key was used for another request"),
    "market_unreachable": Kind(504, "The gateway did not answer in time"),
    "interrupted": Kind(502, "The call was cut off before a result was in"),
    "unavailable": Kind(503, "A part of the market cannot be reached"),
    "unknown_call": Kind(404, "There is no such call"),
    "unknown_negotiation": Kind(404, "There is no such negotiation"),
    "unknown_deal": Kind(404, "There is no such deal"),
    "account_not_found": Kind(404, "The ledger never saw this account"),
    "transaction_not_found": Kind(404, "The ledger has no such transaction"),
    "hold_not_found": Kind(404, "The ledger has no such hold"),
    "not_covered_yet": Kind(404, "No checkpoint covers this yet"),
    # the kernel's
    "error": Kind(500, "The market failed"),
    "local_error": Kind(400, "The request cannot be served as it is"),
    "remote_error": Kind(502, "The other side failed"),
    "bad_input": Kind(422, "A value has not the form its field asks for"),
    "bad_encoding": Kind(422, "The bytes are not canonical JSON"),
    "unknown_field": Kind(422, "A field is unknown, missing or of a wrong type"),
    "too_large": Kind(413, "Something exceeds its limit"),
    "bad_id": Kind(422, "An id is malformed"),
    "bad_path": Kind(422, "A derivation path is malformed"),
    "bad_phrase": Kind(422, "The words are no recovery phrase"),
    "bad_amount": Kind(422, "An amount is malformed"),
    "bad_signature": Kind(422, "A signature does not verify"),
    "envelope_expired": Kind(422, "A signed message is out of its time"),
    "wrong_audience": Kind(422, "A signed message is meant for somebody else"),
    # money: the ledger said no
    "payment_refused": Kind(409, "The ledger did not take the transaction"),
    "invalid_transaction": Kind(422, "The transaction can never become valid"),
    "wrong_chain": Kind(422, "The transaction is for another ledger"),
    "expired": Kind(422, "The transaction is past its time"),
    "unknown_account": Kind(422, "An account's name is no valid key"),
    "self_payment": Kind(422, "An account pays itself"),
    "wrong_signers": Kind(422, "The transaction is not signed by whom it must be"),
    "bad_threshold": Kind(422, "A policy asks for more keys than it names"),
    "bad_arbitration": Kind(422, "The arbiter is a party to the hold"),
    "bad_evidence": Kind(422, "The evidence does not prove a fault"),
    "reserved_type": Kind(422, "Only the ledger itself writes this type"),
    "insufficient_funds": Kind(402, "The account does not have that much"),
    "budget_exceeded": Kind(402, "The budget of the key is exceeded"),
    "fee_too_low": Kind(402, "The fee is too low"),
    "cap_exceeded": Kind(409, "The faucet gives no more for now"),
    "bad_expiry": Kind(422, "The expiry is in the past or too far ahead"),
    "unknown_hold": Kind(422, "There is no such hold"),
    "hold_resolved": Kind(409, "The hold was captured or released before"),
    "hold_expired": Kind(409, "The hold's time is over"),
    "bad_pledge": Kind(409, "The seller's pledge does not stand"),
    "pledge_used": Kind(409, "The seller's pledge was used by another hold"),
    "pledge_unbacked": Kind(402, "The seller pledged money that it does not have"),
    "exceeds_hold": Kind(409, "The capture exceeds what is left in the hold"),
    "not_payee": Kind(403, "Only the payee captures a hold or gives it back"),
    "not_expired": Kind(403, "Its time is not over yet"),
    "disputed": Kind(409, "The hold waits for its arbiter"),
    "not_disputed": Kind(409, "Nobody disputes the hold"),
    "no_arbiter": Kind(409, "The hold names no arbiter"),
    "not_arbiter": Kind(403, "Only the hold's arbiter resolves its dispute"),
    "not_party": Kind(403, "Only its parties dispute a hold, and its payer challenges it"),
    "not_contestable": Kind(409, "What was captured is the payee's for good"),
    "challenged": Kind(409, "The hold waits for its payee to deliver"),
    "not_challenged": Kind(409, "Nobody challenges what was captured"),
    "not_final": Kind(409, "A hold that may be challenged is captured once"),
    "bad_part": Kind(409, "Another part of the delivery comes next"),
    "wrong_receipt": Kind(422, "The receipt is not the one that the capture named"),
    "bad_recourse": Kind(422, "A hold has an arbiter or a recourse, not both"),
    "bad_split": Kind(422, "The split is not exactly what is left of the hold"),
    "deadline_passed": Kind(409, "The time to decide or to deliver is over"),
    "insufficient_stake": Kind(402, "The account has not staked that much"),
    "unbonding": Kind(409, "That part of the stake is on its way back already"),
    "no_bond": Kind(409, "The offender has no bond"),
    "evidence_used": Kind(409, "The fault was punished before"),
    "not_minter": Kind(403, "Only the operator mints"),
    "not_authorised": Kind(403, "The signatures are not those that the policies ask for"),
    "unknown_key": Kind(422, "The old key is none of the account's, or the new one is already"),
    "fixed_key": Kind(403, "The operator's key is the genesis's"),
    "unknown_session": Kind(403, "The signing key has no session"),
    "session_expired": Kind(403, "The session of the signing key is over"),
    "out_of_scope": Kind(403, "The session does not cover this"),
    "too_many_sessions": Kind(409, "The account has too many sessions"),
    "nonce_conflict": Kind(409, "Another transaction has this sequence number"),
    "nonce_gap": Kind(503, "An earlier sequence number is missing"),
    "too_early": Kind(503, "The transaction is valid too far ahead"),
    "busy": Kind(503, "Too much is under way"),
    "payment_unknown": Kind(503, "Whether the payment went through is not known yet"),
    "ledger_unavailable": Kind(503, "The ledger cannot be reached"),
    "ledger_unreachable": Kind(503, "The ledger cannot be reached"),
    "bad_ledger_answer": Kind(502, "The ledger answered with what it must not"),
    "store_failed": Kind(503, "The ledger's disk failed"),
    "store_locked": Kind(503, "Another process writes to the ledger's store"),
    "fenced": Kind(503, "Another sequencer took the ledger over"),
    "standby": Kind(503, "The ledger is served by another process"),
    "store_version": Kind(500, "Another release wrote the ledger"),
    "bad_archive": Kind(500, "A folder is no archive of a log, or of another one"),
    "bad_backup": Kind(500, "A backup is missing, damaged, or would be written over"),
    "not_empty": Kind(409, "There is a ledger already"),
    "ledger_corrupt": Kind(500, "The ledger's file is damaged"),
    "invariant_broken": Kind(500, "The ledger found a defect in itself"),
    "wrong_genesis": Kind(500, "The ledger's file is another network's"),
    "keystore": Kind(500, "A key file cannot be used"),
    "outbox_failed": Kind(500, "The outbox cannot be read or written"),
    "outbox_full": Kind(503, "Too many payments are without an answer"),
    "payment_key_reused": Kind(409, "The key names another payment"),
    "unknown_wallet": Kind(404, "There is no such wallet"),
    "wallet_exists": Kind(409, "A wallet of that name is there already"),
    "wallet_busy": Kind(409, "Another process is at this wallet"),
    "shared_account": Kind(409, "Several keys act for the account together"),
    "wrong_passphrase": Kind(500, "The passphrase does not open the keystore"),
    # the log
    "bad_note": Kind(422, "The bytes are no signed note"),
    "bad_proof": Kind(422, "The proof does not lead to its root"),
    "bad_receipt": Kind(422, "The bytes are no receipt of the log"),
    "bad_policy": Kind(422, "The text is no trust policy"),
    "forked_ledger": Kind(502, "The ledger signed two histories"),
    "stale_ledger": Kind(502, "The ledger shows less than before"),
    "ledger_silent": Kind(503, "The ledger does not answer"),
    "not_witnessed": Kind(503, "Too few witnesses cosigned the checkpoint"),
    "not_evidence": Kind(422, "The evidence proves nothing"),
    "bad_dealings": Kind(500, "Kept sums of dealings cannot be read"),
    "reputation_busy": Kind(503, "Too many reputations are asked for at once"),
    "not_audited": Kind(503, "The log is not audited that far"),
    "witness_unreachable": Kind(503, "A witness cannot be reached"),
    "rolled_back": Kind(500, "A witness has seen more of the log than the ledger has"),
    "no_quorum": Kind(503, "Too few witnesses can be asked"),
    "bad_tile": Kind(404, "There is no such tile"),
    "out_of_range": Kind(422, "The log is not that long"),
    # directory, mail and threads
    "broker_unreachable": Kind(503, "The broker cannot be reached"),
    "bad_redis_url": Kind(500, "The broker's address cannot be read"),
    "cross_slot": Kind(500, "Keys of one command lie in different slots of the cluster"),
    "redis_too_old": Kind(500, "The broker's server is too old"),
    "mailbox_full": Kind(503, "The recipient has too many messages waiting"),
    "sender_quota": Kind(429, "The recipient has too much of this sender's unread"),
    "damaged_thread": Kind(500, "The broker's record of this thread is damaged"),
    "too_many_threads": Kind(429, "The buyer has too many threads open with this seller"),
    "lease_lost": Kind(409, "Somebody else took the message over"),
    "bad_cursor": Kind(422, "The cursor was not made here"),
    "bad_query": Kind(422, "The query is malformed"),
    "bad_owner": Kind(422, "The name of a mailbox is malformed"),
    "bad_message": Kind(422, "The message has no place in the thread"),
    "bad_transcript": Kind(422, "The transcript does not hold"),
    "stale_card": Kind(409, "A newer card of the agent is known"),
    "no_word_vectors": Kind(500, "The vectors of words are not installed"),
    "thread_refused": Kind(409, "The thread's rules refuse the message"),
    # buying
    "unknown_skill": Kind(404, "Nobody sells this"),
    "unknown_agent": Kind(404, "This agent is not here, or does not sell this"),
    "no_deal": Kind(409, "No seller agreed within the budget"),
    "deadline_missed": Kind(504, "No result came before the deadline"),
    "deadline_exceeded": Kind(504, "The job's deadline is over"),
    "seller_failed": Kind(502, "The seller took the order and failed"),
    "bad_result": Kind(502, "The seller delivered something else"),
    "mandate_exceeded": Kind(422, "The terms go beyond the mandate"),
    "offer_inadmissible": Kind(502, "The other side's offer is not admissible"),
    "out_of_place": Kind(502, "A message does not belong at this point"),
    "depth_exceeded": Kind(422, "Agents bought from agents too many levels deep"),
    "job_budget_exceeded": Kind(402, "The job's own budget is exceeded"),
    "cannot_buy": Kind(409, "This job cannot buy"),
    "bad_hold": Kind(502, "The hold does not secure the price"),
    "bad_order": Kind(502, "The order is not for the deal"),
    "input_refused": Kind(422, "The seller cannot work on this input"),
    "job_failed": Kind(502, "The job failed"),
    "bad_output": Kind(502, "The job's output is not of the declared form"),
    "nothing_bought": Kind(502, "None of the needed skills could be bought"),
    "bad_plan": Kind(422, "The plan is malformed"),
    "planner_failed": Kind(502, "The planner failed"),
    "clerk_failed": Kind(502, "The wish could not be written down"),
    "model_failed": Kind(502, "The model failed"),
    # what agents refuse
    "bad_arguments": Kind(422, "The input does not fit the skill's schema"),
    "nothing_to_do": Kind(422, "There is nothing to work on"),
    "unreadable_input": Kind(422, "The input cannot be read"),
    "too_complex": Kind(422, "The input is too complex"),
    "query_refused": Kind(422, "The query is refused"),
    "unsafe_address": Kind(422, "The address may not be fetched"),
    "page_unavailable": Kind(502, "The page cannot be fetched"),
    "sandbox_failed": Kind(422, "The work failed in its sandbox"),
    "sandbox_crashed": Kind(502, "The work crashed its sandbox"),
    "sandbox_memory": Kind(413, "The work needs too much memory"),
    "sandbox_output": Kind(413, "The work has too much output"),
    "sandbox_timeout": Kind(504, "The work took too long"),
    # agents elsewhere, listed by URL
    "no_foreign_card": Kind(404, "The URL leads to no agent card"),
    "bad_foreign_card": Kind(422, "The agent's card is malformed"),
    "bad_card_signature": Kind(422, "The card's signature does not verify"),
    "foreign_card_changed": Kind(409, "The agent shows another card than the one listed"),
    "unsupported_protocol": Kind(422, "The agent speaks no protocol that we do"),
    "foreign_unreachable": Kind(502, "The agent's server does not answer"),
    "bad_foreign_answer": Kind(502, "The agent's server answers with nonsense"),
    "foreign_rpc_error": Kind(502, "The agent's server answers with an error"),
    "foreign_failed": Kind(502, "The foreign agent failed at the job"),
    "foreign_refused": Kind(422, "The foreign agent does not take the input"),
    "already_listed": Kind(409, "The URL is listed already"),
    # deploying
    "unknown_template": Kind(422, "There is no such template"),
    "unknown_deployment": Kind(404, "There is no such deployment"),
    "bad_config": Kind(422, "The configuration does not fit the template"),
    "deployment_moved": Kind(409, "The deployment's state does not allow this"),
    "self_test_failed": Kind(422, "The agent does not pass its own test"),
    "bad_offer": Kind(422, "The offer cannot be made as declared"),
    "bad_tier": Kind(422, "The offer cannot be had on these other terms"),
    "bad_agent_file": Kind(422, "The file declares no agent"),
    "ruff_missing": Kind(500, "A program that the template needs is missing"),
    "host_running": Kind(409, "Another process runs this host"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document, ready to be sent."""

    code: str
    status: int
    title: str
    detail: str
    retryable: bool = False
    hint: str = ""
    facts: dict[str, Fact] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self, **members: object) -> dict[str, object]:
        """Return the JSON members; ``members`` are extensions of this occurrence."""
        document: dict[str, object] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.hint:
            document["hint"] = self.hint
        if self.facts:
            document["facts"] = self.facts
        return document | members

    def response(self, **members: object) -> Response:
        """Return the HTTP response."""
        headers = {"cache-control": "no-store"} | self.headers
        if self.status in {429, 503}:
            headers.setdefault("retry-after", str(self._retry_after_s()))
        return Response(
            orjson.dumps(self.document(**members)),
            status_code=self.status,
            headers=headers,
            media_type=PROBLEM_JSON,
        )

    def _retry_after_s(self) -> int:
        wait_ms = self.facts.get("retry_after_ms")
        return max(1, -(-wait_ms // 1_000)) if isinstance(wait_ms, int) else _RETRY_AFTER_S


def problem_of(error: RahbaError) -> Problem:
    """Give an error its HTTP form by its own code, else by the nearest ancestor's in the table."""
    code, kind = error.code, KINDS.get(error.code)
    for ancestor in type(error).__mro__:
        if kind is not None:
            break
        kind = KINDS.get(getattr(ancestor, "code", ""))
    return Problem(
        code=code,
        status=(kind or KINDS["error"]).status,
        title=(kind or KINDS["error"]).title,
        detail=error.message,
        retryable=error.retryable,
        hint=error.hint,
        facts=error.facts,
        headers=error.headers if isinstance(error, HttpError) else {},
    )


def plain_problem(code: str, detail: str = "", **facts: Fact) -> Problem:
    """Make a problem for what has no error object: a 404 of the router, a crash inside."""
    kind = KINDS[code]
    return Problem(code, kind.status, kind.title, detail or kind.title, facts=facts)
