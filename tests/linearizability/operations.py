"""What clients ask of a registry, what they are answered, and when: a history, as values. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A key as the registry shows it; `value` is None where an answer leaves it out, and when it is empty."""

    key: str
    value: bytes | None = None
    flags: int = 0
    session: str = ""
    lock_index: int = 0
    create_index: int = 0
    modify_index: int = 0


class Operation(msgspec.Struct, frozen=True, tag=True):
    """One request."""


class Put(Operation, frozen=True):
    key: str
    value: bytes
    flags: int = 0


class Cas(Operation, frozen=True):
    """Put, if the key's ModifyIndex is `index`; 0: if there is no such key."""

    key: str
    value: bytes
    index: int
    flags: int = 0


class Acquire(Operation, frozen=True):
    key: str
    value: bytes
    session: str


class Release(Operation, frozen=True):
    key: str
    value: bytes
    session: str


class Delete(Operation, frozen=True):
    key: str


class DeleteCas(Operation, frozen=True):
    key: str
    index: int


class DeleteTree(Operation, frozen=True):
    prefix: str


class Get(Operation, frozen=True):
    key: str


class Tree(Operation, frozen=True):
    """All entries below a prefix; in a transaction only as its last step."""

    prefix: str


class CheckIndex(Operation, frozen=True):
    key: str
    index: int


class CheckSession(Operation, frozen=True):
    key: str
    session: str


class CheckNotExists(Operation, frozen=True):
    key: str


class Txn(Operation, frozen=True):
    steps: tuple[Operation, ...]


class CreateSession(Operation, frozen=True):
    """`session` is the id that the answer gave, empty while it is unknown."""

    behavior: str
    session: str = ""


class EndSession(Operation, frozen=True):
    session: str


class AskSession(Operation, frozen=True):
    session: str


class Answer(msgspec.Struct, frozen=True, tag=True):
    """What came back."""


class Said(Answer, frozen=True):
    """Yes or no."""

    yes: bool


class Created(Answer, frozen=True):
    """The session's id."""

    session: str


class NoSession(Answer, frozen=True):
    """Refused, because there is no such session."""


class Read(Answer, frozen=True):
    """The entries asked for, by key, and the X-Consul-Index of the answer."""

    index: int
    entries: tuple[Entry, ...]


class Done(Answer, frozen=True):
    """The transaction's results."""

    entries: tuple[Entry, ...]


class Undone(Answer, frozen=True):
    """The steps of the transaction that did not hold."""

    places: tuple[int, ...]


NEVER = math.inf


class Call(msgspec.Struct, frozen=True):
    """One operation from `began` to `ended` on one clock.

    Without an answer it may have been done at any time in between, or not at all; who cannot even say until when
    says NEVER.
    """

    client: str
    operation: Operation
    began: float
    ended: float = NEVER
    answer: Answer | None = None

    @property
    def known(self) -> bool:
        return self.answer is not None


History = Sequence[Call]
READS = (Get, Tree, AskSession, CheckIndex, CheckSession, CheckNotExists)
