"""Vectors of balances and histories, honest and false; see :mod:`tools.vectors`."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson

from rahba.balance import AccountProof, join_records, seal_root
from rahba.encoding import b64, unb64
from rahba.envelope import seal
from rahba.merkle import leaf_hash
from rahba.messages import MESSAGE_TYPE, TX_TYPE
from rahba.note import sign_checkpoint
from rahba.proof import InclusionProof
from tools.vector_shop import AMINA, BRAHIM, CHADIA, OPERATOR, Case, Shop, case, flip, flip_hex
from wallet.merkle import MerkleLog
from wallet.transactions import read
from wallet.wire import plain


def balances(made: Shop) -> list[Case]:
    """Every account, and one proof changed in all ways."""
    found = []
    for name, account in made.book.state.accounts.items():
        says = {"balance": str(account.posted), "size": made.sizes[-1], "tip": account.tip.hex()}
        given = {"proof": plain(made.account(name)), "vkey": made.vkey}
        found.append(case("balance", f"position {account.position}", given, says))
    good, other = made.account(AMINA.did), made.account(BRAHIM.did)
    changes: dict[str, AccountProof] = {
        "one fals more": replace(good, balance=good.balance + 1),
        "another account's name": replace(good, id=other.id),
        "the issuance's name": replace(good, id="issuance"),
        "other nonces": replace(good, nonces=flip_hex(good.nonces)),
        "another tip": replace(good, tip=other.tip),
        "another position": replace(good, position=other.position),
        "another number of accounts": replace(good, accounts=good.accounts + 2),
        "a position beyond the accounts": replace(good, position=good.accounts),
        "a record too few": replace(good, path=good.path[:-1]),
        "a record too many": replace(good, path=(*good.path, good.path[0])),
        "a record of 47 bytes": replace(good, path=(good.path[0][2:], *good.path[1:])),
        "value shifted between brothers": replace(
            good, path=(_moved(good.path[0], -1), *good.path[1:])
        ),
        "an altered state leaf": replace(good, state=b64(unb64(good.state)[:-1] + b" ")),
        "an older state leaf": replace(
            good,
            state=b64(made.entries[made.sizes[-2] - 1]),
            inclusion=made.proof(made.sizes[-2] - 1),
        ),
        "an older checkpoint": replace(
            good, inclusion=replace(good.inclusion, checkpoint=made.notes[-2])
        ),
    }
    changes |= _misplaced(made, good)
    changes |= {name: _ending(made, good, last) for name, last in _false_ends(made).items()}
    changes |= {name: _rooted(made, false) for name, false in _false_accounts(good).items()}
    odd = next(proof for proof in (good, other) if proof.position % 2)
    between = {"proof": plain(odd) | {"position": odd.position - 0.5}, "vkey": made.vkey}
    return [
        *found,
        *(
            case("balance", name, {"proof": plain(proof), "vkey": made.vkey})
            for name, proof in changes.items()
        ),
        case("balance", "a position between two accounts", between),
    ]


def _misplaced(made: Shop, good: AccountProof) -> dict[str, AccountProof]:
    """Return proofs with a state leaf that is in the wrong place, or a step that was touched."""
    whole, size = good.inclusion, made.sizes[-1]
    longer = MerkleLog(made.book.log.node(0, at) for at in range(size))
    longer.append(leaf_hash(made.entries[1]))
    step, *path = whole.path
    note = whole.checkpoint
    return {
        "a state leaf that is not the checkpoint's last": replace(
            good, inclusion=_under(made, longer, size - 1)
        ),
        "a state leaf that is not the one in the log": replace(
            _ending(made, good, made.entries[1]), state=good.state
        ),
        "a flipped bit in the state leaf's path": replace(
            good, inclusion=replace(whole, path=(flip_hex(step), *path))
        ),
        "a flipped bit in the checkpoint's signature": replace(
            good, inclusion=replace(whole, checkpoint=flip(note, len(note) - 20))
        ),
    }


def _false_ends(made: Shop) -> dict[str, bytes]:
    """Return last leaves under which no checkpoint, however signed, proves a balance."""
    state = _state(made)
    right = seal(TX_TYPE, state, OPERATOR)
    at = right.index(b'"sig":"') + 10
    return {
        "a state leaf of somebody else": seal(TX_TYPE, state, AMINA),
        "a state leaf that others sign, too": seal(TX_TYPE, state, OPERATOR, AMINA),
        "a state leaf in an envelope of another type": seal(MESSAGE_TYPE, state, OPERATOR),
        "a state leaf of another kind": seal(TX_TYPE, state | {"type": "genesis"}, OPERATOR),
        "a state leaf with another root": seal(TX_TYPE, state | {"root": "0" * 64}, OPERATOR),
        "a state leaf of another place in the log": seal(
            TX_TYPE, state | {"prev_size": made.sizes[-2]}, OPERATOR
        ),
        "a state leaf with a flipped bit in its signature": flip(right.decode(), at).encode(),
    }


def _false_accounts(good: AccountProof) -> dict[str, AccountProof]:
    """Return accounts that no honest tree has; the operator signs the root they lead to."""
    brother, *others = good.path
    more = good.balance + 10**6
    return {
        "an account that owes": replace(
            good, balance=-1, path=(_moved(brother, good.balance + 1), *others)
        ),
        "a subtree that owes": replace(
            good, balance=more, path=(_moved(brother, -(10**6)), *others)
        ),
        "a second issuance": replace(good, id="issuance"),
        "an issuance of another name": replace(good, position=0),
        "balances that do not add up to nothing": replace(good, balance=more),
    }


def _rooted(made: Shop, false: AccountProof) -> AccountProof:
    """Return the proof under a state leaf that tells whatever root it leads to."""
    name, total = false.id.encode(), false.balance.to_bytes(16, "big", signed=True)
    body = bytes([0, len(name)]) + name + total + bytes.fromhex(false.nonces + false.tip)
    found, node, last = total + sha256(body).digest(), false.position, false.accounts - 1
    for record in map(bytes.fromhex, false.path):
        while not node & 1 and node == last:
            node, last = node >> 1, last >> 1
        found = join_records(record + found if node & 1 else found + record)
        node, last = node >> 1, last >> 1
    root = seal_root(false.accounts, found).hex()
    return _ending(made, false, seal(TX_TYPE, _state(made) | {"root": root}, OPERATOR))


def _state(made: Shop) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(read(made.entries[-1]).payload)
    return found


def _ending(made: Shop, good: AccountProof, last: bytes) -> AccountProof:
    """Return the proof under a log whose last leaf is another one; the operator signs it."""
    size = made.sizes[-1]
    log = MerkleLog(made.book.log.node(0, at) for at in range(size - 1))
    log.append(leaf_hash(last))
    return replace(good, state=b64(last), inclusion=_under(made, log, size - 1))


def _under(made: Shop, log: MerkleLog, index: int) -> InclusionProof:
    """Prove a leaf of any log under a checkpoint that the operator signs."""
    note = sign_checkpoint(made.genesis.origin, log.size, log.root(), OPERATOR)
    path = tuple(step.hex() for step in log.inclusion(index, log.size))
    return InclusionProof(index, log.node(0, index).hex(), path, note)


def histories(made: Shop) -> list[Case]:
    """Whole histories, and one with something left out, added, changed or moved."""
    found = []
    for name, account in made.book.state.accounts.items():
        entries = [b64(raw) for raw in made.histories.get(name, [])]
        given = {"entries": entries, "tip": account.tip.hex()}
        found.append(case("history", f"position {account.position}", given, {}))
    entries = [b64(raw) for raw in made.histories[BRAHIM.did]]
    foreign = b64(made.histories[CHADIA.did][0])
    tip = made.book.state.accounts[BRAHIM.did].tip.hex()
    changes = {
        "without the oldest": entries[1:],
        "without the newest": entries[:-1],
        "without one in the middle": entries[:3] + entries[4:],
        "with a foreign one": [*entries[:3], foreign, *entries[3:]],
        "with one twice": [*entries, entries[-1]],
        "newest first": entries[::-1],
        "with one altered": [b64(unb64(entries[0])[:-1] + b" "), *entries[1:]],
        "nothing": [],
    }
    given = [(name, {"entries": part, "tip": tip}) for name, part in changes.items()]
    given.append(("another account's tip", {"entries": entries, "tip": "0" * 64}))
    return found + [case("history", name, words) for name, words in given]


def _moved(record: str, fals: int) -> str:
    """Add to the sum in a record and leave its hash."""
    total = int.from_bytes(bytes.fromhex(record[:32]), "big", signed=True) + fals
    return total.to_bytes(16, "big", signed=True).hex() + record[32:]
