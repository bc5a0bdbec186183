"""What the rules of holds draw: who, how much, for how long, and what is signed of it."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from rahba.encoding import sha256_hex, unb64
from tests.fixtures.faults import leaving, receipt
from tests.fixtures.wallet import DEAL, FEE, did, signer_of

NAMES = [did(name) for name in ("amina", "brahim", "chadia")]
OPERATOR, AGENT, STRANGER, JUDGE = (did(n) for n in ("operator", "agent", "stranger", "judge"))
SPARE = [did(f"spare {number}") for number in range(4)]
SIGNERS = {did(name): signer_of(name) for name in ("operator", "agent", "stranger", "judge")}
SIGNERS |= {did(name): signer_of(name) for name in ("amina", "brahim", "chadia")}
SIGNERS |= {did(f"spare {number}"): signer_of(f"spare {number}") for number in range(4)}
NAME_OF = {did(name): name for name in ("amina", "brahim", "chadia")}
DEALS = (DEAL, "cd" * 32, "ef" * 32)
EPOCH_MS = 10_000
WINDOW_MS, UNBOND_MS, POLICY_MS = 2_000, 3_000, 2_000
names = st.sampled_from(NAMES)
# Few values on one grid: so that limits are met exactly, not only missed and exceeded.
amounts = st.integers(1, 6).map(lambda number: number * FEE)
fees = st.sampled_from((FEE, FEE, FEE, 2 * FEE, 5 * FEE))
lives = st.sampled_from(
    (
        "spend wait restart spend",
        "wait challenge spend",
        "almost challenge wait expire spend",
        "challenge",
        "challenge answer almost answer spend",
        "restart challenge lie answer wait answer expire",
        "challenge answer restart lie answer",
        "challenge spend wait expire spend",
        "spend challenge wait expire",
        "challenge give-up wait give-up expire",
        "challenge give-up answer",
        "challenge left",
        "restart challenge foul left spend",
        "challenge foul wait left expire",
        "wait hour pledge",
        "challenge left pledge almost-hour pledge again-hour pledge",
        "restart wait almost-hour restart pledge again-hour pledge",
    )
)
outputs, sponsors = (
    st.sampled_from((None, "a", "b", "left")),
    st.sampled_from((None, None, OPERATOR)),
)
finals = st.sampled_from((True, True, True, False))
captures = st.fixed_dictionaries(
    {"final": finals, "output": outputs, "fee": fees, "sponsor": sponsors}
)
places = st.integers(0, 5)
spans = st.integers(0, 5).map(lambda number: number * 1_000)
agents = st.sampled_from((None, AGENT, None, AGENT, None, AGENT, STRANGER))
windows = st.none() | st.tuples(*[st.integers(1, 3).map(lambda number: number * 1_000)] * 2)
RECEIPTS: Final = {
    (by, deal, output): receipt(name, output, deal)
    for by, name in NAME_OF.items()
    for deal in DEALS
    for output in "ab"
}
WORDS: Final = {
    (did(name), deal, output): leaving(name, output, deal)
    for name in ("amina", "brahim", "chadia", "agent")
    for deal in DEALS
    for output in "ab"
}
DIGESTS: Final = {key: sha256_hex(unb64(text)) for key, text in RECEIPTS.items()}
SAID: Final = {key: sha256_hex(unb64(text)) for key, text in WORDS.items()}
