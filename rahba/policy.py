"""Which witnesses must have cosigned a checkpoint to make it believed (C2SP ``tlog-policy``).

* Lines ``log VKEY [URL]``, ``witness NAME VKEY [URL]``, ``group NAME all|any|K MEMBER...`` and one
  ``quorum NAME|none``. A name is defined before it is used and is a member at most once.
* :meth:`Policy.believes` decides: signed by a log of the policy, cosigned by a quorum.

    >>> read_policy("quorum none").quorum
    'none'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rahba.cosignature import cosigned_at
from rahba.errors import BadInputError, RahbaError, TooLargeError
from rahba.note import COSIGNATURE, Checkpoint, open_checkpoint, read_verifier_key

MAX_CHARS: Final = 256 * 1024
MAX_EACH: Final = 64
NONE: Final = "none"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


class BadPolicyError(BadInputError):
    """A text is no trust policy; ``facts["line"]`` is the first wrong line."""

    code = "bad_policy"
    hint = "see C2SP tlog-policy"


@dataclass(frozen=True, slots=True)
class Party:
    """A log or a witness: its verifier key, and where it is reached."""

    vkey: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses a checkpoint when ``threshold`` of its members do."""

    threshold: int
    members: tuple[str, ...]


@dataclass(slots=True)
class Policy:
    """A trust policy; made by :func:`read_policy`."""

    logs: list[Party] = field(default_factory=list)
    witnesses: dict[str, Party] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str = ""

    def met(self, cosigned: Mapping[str, object]) -> bool:
        """Say whether the witnesses named in ``cosigned`` are a quorum."""
        return self.quorum == NONE or self._witnessed(self.quorum, cosigned)

    def cosigners(self, note: str) -> dict[str, int]:
        """Return the witnesses of the policy that cosigned ``note``, and when (seconds).

        A line that claims to be a witness's and does not verify counts for nothing.
        """
        found = {}
        for name, witness in self.witnesses.items():
            try:
                time_s = cosigned_at(note, witness.vkey)
            except RahbaError:
                continue
            if time_s is not None:
                found[name] = time_s
        return found

    def believes(self, note: str) -> Checkpoint | None:
        """Return the checkpoint if a log of the policy signed it and a quorum cosigned it."""
        for log in self.logs:
            try:
                checkpoint = open_checkpoint(note, log.vkey)
            except RahbaError:
                continue
            return checkpoint if self.met(self.cosigners(note)) else None
        return None

    def _witnessed(self, name: str, cosigned: Mapping[str, object]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigned
        return sum(self._witnessed(part, cosigned) for part in group.members) >= group.threshold


def read_policy(text: str) -> Policy:
    """Read a policy file.

    Raises:
        BadPolicyError: it is malformed; says at which line.
        TooLargeError: it is beyond the limits.
    """
    if len(text) > MAX_CHARS:
        raise TooLargeError("policy too large", limit=MAX_CHARS)
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if _CONTROL.search(line):
                raise BadPolicyError("control characters")
            reader.take(line.replace("\t", " ").split(" "))
        except TooLargeError:
            raise
        except RahbaError as error:
            raise BadPolicyError(f"line {number}: {error.message}", line=number) from error
    if not reader.policy.quorum:
        raise BadPolicyError("a policy has one quorum line")
    return reader.policy


def write_policy(policy: Policy) -> str:
    """Return a policy's file without addresses: what is needed to judge a checkpoint."""
    lines = [f"log {log.vkey}" for log in policy.logs]
    lines += [f"witness {name} {witness.vkey}" for name, witness in policy.witnesses.items()]
    for name, group in policy.groups.items():
        lines.append(" ".join(["group", name, str(group.threshold), *group.members]))
    return "\n".join([*lines, f"quorum {policy.quorum}", ""])


class _Reader:
    """Takes line after line."""

    def __init__(self) -> None:
        self.policy = Policy()
        self._keys: set[tuple[str, bytes]] = set()
        self._members: set[str] = set()

    def take(self, parts: list[str]) -> None:
        words = [part for part in parts if part]
        if not words or words[0].startswith("#"):
            return
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._new_key("log", read_verifier_key(vkey).public_key)
                self.policy.logs.append(Party(vkey, url[0] if url else None))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._new_key("witness", read_verifier_key(vkey, COSIGNATURE).public_key)
                self._new_name(name)
                self.policy.witnesses[name] = Party(vkey, url[0] if url else None)
            case ["group", name, threshold, *members] if members:
                self._new_name(name)
                for member in members:
                    self._new_member(member)
                group = Group(_threshold(threshold, len(members)), tuple(members))
                self.policy.groups[name] = group
            case ["quorum", name] if not self.policy.quorum:
                if name != NONE:
                    self._known(name)
                self.policy.quorum = name
            case _:
                raise BadPolicyError("not a line of a policy")
        policy = self.policy
        if max(len(policy.logs), len(policy.witnesses), len(policy.groups)) > MAX_EACH:
            raise TooLargeError("too many logs, witnesses or groups", limit=MAX_EACH)

    def _new_key(self, kind: str, public_key: bytes) -> None:
        if (kind, public_key) in self._keys:
            raise BadPolicyError(f"the same {kind} twice")
        self._keys.add((kind, public_key))

    def _new_name(self, name: str) -> None:
        if name == NONE or name in self.policy.witnesses or name in self.policy.groups:
            raise BadPolicyError(f"the name {name[:64]} is taken")

    def _new_member(self, name: str) -> None:
        self._known(name)
        if name in self._members:
            raise BadPolicyError(f"{name[:64]} is a member already")
        self._members.add(name)

    def _known(self, name: str) -> None:
        if name not in self.policy.witnesses and name not in self.policy.groups:
            raise BadPolicyError(f"{name[:64]} is not defined before it is used")


def _threshold(text: str, members: int) -> int:
    if text in {"all", "any"}:
        return members if text == "all" else 1
    if _NUMBER.fullmatch(text) is None or int(text) > members:
        raise BadPolicyError("a threshold is all, any, or a number up to that of the members")
    return int(text)
