"""The Merkle-sum tree against a plain recomputation, and against everybody who shifts value."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahba.balance import AccountLeaf, verify_balance
from rahba.errors import BadInputError
from rahba.merkle import EMPTY_ROOT, BadProofError, OutOfRangeError
from wallet.sumtree import SumTree

ZERO = bytes(32)


def leaf(position: int, balance: int, mark: int = 0) -> AccountLeaf:
    name = "issuance" if position == 0 else f"account {position}"
    return AccountLeaf(name, balance, bytes([mark]) * 32, ZERO)


def naive_root(leaves: list[AccountLeaf]) -> bytes:
    """Recompute from nothing, recursively, in other words than the tree's."""
    if not leaves:
        return EMPTY_ROOT
    total, top = naive_node(leaves)
    record = total.to_bytes(16, "big", signed=True) + top
    return sha256(b"\x02" + len(leaves).to_bytes(8, "big") + record).digest()


def naive_node(leaves: list[AccountLeaf]) -> tuple[int, bytes]:
    if len(leaves) == 1:
        one = leaves[0]
        name = one.id.encode()
        amount = one.balance.to_bytes(16, "big", signed=True)
        body = b"\x00" + bytes([len(name)]) + name + amount + one.nonces + one.tip
        return one.balance, sha256(body).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    (left, left_hash), (right, right_hash) = naive_node(leaves[:split]), naive_node(leaves[split:])
    body = b"\x01"
    for amount, node in ((left, left_hash), (right, right_hash)):
        body += amount.to_bytes(16, "big", signed=True) + node
    return left + right, sha256(body).digest()


def tree_of(leaves: list[AccountLeaf]) -> SumTree:
    tree = SumTree()
    for position, item in enumerate(leaves):
        tree.update(position, item)
    return tree


ROUNDS = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**63 - 1)), max_size=12), max_size=8
)


@given(ROUNDS)
def test_touching_accounts_gives_the_root_of_a_full_recomputation(
    rounds: list[list[tuple[int, int]]],
) -> None:
    tree, leaves = SumTree(), list[AccountLeaf]()
    for changes in rounds:
        for place, amount in changes:
            position = min(place, len(leaves))
            changed = leaf(position, amount if position else -amount, amount % 251)
            tree.update(position, changed)
            leaves[position : position + 1] = [changed]
        assert tree.root() == naive_root(leaves)
        assert tree.total == sum(item.balance for item in leaves)
        for position, item in enumerate(leaves):
            assert verify_balance(tree.proof(position), tree.root()) == item.balance


@given(st.permutations(range(1, 12)))
def test_the_order_of_changes_makes_no_difference(order: list[int]) -> None:
    tree = tree_of([leaf(position, 0) for position in range(12)])
    tree.root()
    for position in order:
        tree.update(position, leaf(position, position * 7))
    assert tree.root() == tree_of([leaf(position, position * 7) for position in range(12)]).root()


def test_the_root_fixes_every_field_of_an_account() -> None:
    leaves = [leaf(0, -60), *(leaf(position, 10) for position in range(1, 7))]
    root = tree_of(leaves).root()
    original = leaves[3]
    for other in (
        original._replace(balance=11),
        original._replace(nonces=b"\1" * 32),
        original._replace(tip=b"\1" * 32),
        original._replace(id="account x"),
    ):
        assert tree_of([*leaves[:3], other, *leaves[4:]]).root() != root


def test_value_cannot_be_shifted_between_brothers() -> None:
    even = tree_of([leaf(0, 0), leaf(1, 5), leaf(2, 5), leaf(3, 5)])
    shifted = tree_of([leaf(0, 0), leaf(1, 5), leaf(2, 7), leaf(3, 3)])
    assert even.total == shifted.total
    assert even.root() != shifted.root()


@given(st.data())
def test_an_altered_balance_proof_is_refused(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    leaves = [leaf(position, position * 3 if position else -9) for position in range(count)]
    tree = tree_of(leaves)
    position = data.draw(st.integers(0, count - 1))
    proof, root = tree.proof(position), tree.root()
    target = data.draw(
        st.sampled_from(["leaf", "position", "accounts", "short", "long", "record", "root"])
    )
    if target in {"short", "record"} and not proof.path:
        target = "root"
    path = list(proof.path)
    if target == "leaf":
        proof = replace(proof, leaf=proof.leaf._replace(balance=proof.leaf.balance + 1))
    elif target == "position":
        other = data.draw(st.integers(-1, count + 2).filter(lambda at: at != position))
        proof = replace(proof, position=other)
    elif target == "accounts":
        other = data.draw(st.integers(0, count + 9).filter(lambda at: at != count))
        proof = replace(proof, accounts=other)
    elif target == "short":
        del path[data.draw(st.integers(0, len(path) - 1))]
        proof = replace(proof, path=tuple(path))
    elif target == "long":
        path.insert(data.draw(st.integers(0, len(path))), data.draw(st.binary(max_size=48)))
        proof = replace(proof, path=tuple(path))
    elif target == "record":
        at, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 48 * 8 - 1))
        altered = bytearray(path[at])
        altered[bit // 8] ^= 1 << bit % 8
        path[at] = bytes(altered)
        proof = replace(proof, path=tuple(path))
    else:
        root = sha256(root).digest()
    with pytest.raises(BadProofError):
        verify_balance(proof, root)


def test_a_hidden_debt_beside_an_account_is_refused() -> None:
    """A negative account would let an operator hide what it issued: no proof allows one."""
    tree = tree_of([leaf(0, -20), leaf(1, 5), leaf(2, 5), leaf(3, 10)])
    proof = tree.proof(2)
    debt = (-10).to_bytes(16, "big", signed=True) + proof.path[0][16:]
    with pytest.raises(BadProofError, match="negative"):
        verify_balance(replace(proof, path=(debt, *proof.path[1:])), tree.root())


def test_only_the_issuance_may_owe() -> None:
    tree = tree_of([leaf(0, -5)])
    with pytest.raises(BadInputError):
        tree.update(1, leaf(1, -1))
    with pytest.raises(BadInputError):
        tree.update(1, AccountLeaf("issuance", 0, ZERO, ZERO))
    with pytest.raises(BadInputError):
        SumTree().update(0, leaf(1, 0))
    assert len(tree) == 1


def test_accounts_keep_their_position() -> None:
    tree = tree_of([leaf(0, 0), leaf(1, 0)])
    for position, item in ((3, leaf(3, 0)), (-1, leaf(1, 0))):
        with pytest.raises(OutOfRangeError):
            tree.update(position, item)
    with pytest.raises(BadInputError):
        tree.update(1, leaf(2, 0))
    with pytest.raises(OutOfRangeError):
        tree.proof(2)
    for malformed in (AccountLeaf("", 0, ZERO, ZERO), AccountLeaf("x", 0, b"", ZERO)):
        with pytest.raises(BadInputError):
            tree.update(2, malformed)


def test_an_empty_tree_has_the_empty_root() -> None:
    assert (SumTree().root(), SumTree().total) == (EMPTY_ROOT, 0)
