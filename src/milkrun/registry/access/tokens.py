"""The tokens and policies that were made here, as the state keeps them. Pure.

A token's secret is known only by its SHA-256: secrets are random and long, so a slow hash would add nothing.
The registry's own token is not among them (see own_token.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from milkrun.registry.access import language, rules
from milkrun.registry.access.rules import Rule
from milkrun.registry.ledger import Ledger
from milkrun.registry.refusal import Refused

TOKEN, POLICY = "token", "policy"
ANONYMOUS_ID = "00000000-0000-0000-0000-000000000002"
MANAGEMENT_ID = "00000000-0000-0000-0000-000000000001"
OWN_ID = "00000000-0000-0000-0000-000000000003"
MANAGEMENT = "global-management"
TOKENS_AT_MOST = 10_000
POLICIES_AT_MOST = 10_000


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Rules under a name."""

    id: str
    name: str
    description: str = ""
    text: str = ""
    create_index: int = 0
    modify_index: int = 0


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the secret with this digest (hex) may do what its policies (by id) and services allow."""

    accessor: str
    digest: str
    description: str = ""
    policies: list[str] = []
    services: list[str] = []
    created: str = ""
    create_index: int = 0
    modify_index: int = 0


BUILTIN = Policy(id=MANAGEMENT_ID, name=MANAGEMENT, description="Builtin Policy that grants unlimited access")
ANONYMOUS = Token(accessor=ANONYMOUS_ID, digest="", description="Anonymous Token")


def digest_of(secret: bytes) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret).hexdigest()


_Row = TypeVar("_Row", Token, Policy)


class Tokens:
    """`version` moves with every change, so that what was derived can be thrown away."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.version = 0
        self.tokens: dict[str, Token] = {}
        self.policies: dict[str, Policy] = {}
        self._by_digest: dict[str, Token] = {}

    def holder(self, digest: str) -> Token | None:
        """The token whose secret has this digest."""
        return self._by_digest.get(digest)

    @property
    def anonymous(self) -> Token:
        """What everyone has who shows no token."""
        return self.tokens.get(ANONYMOUS_ID, ANONYMOUS)

    def policy(self, policy_id: str) -> Policy | None:
        """The policy with this id."""
        return BUILTIN if policy_id == MANAGEMENT_ID else self.policies.get(policy_id)

    def policy_named(self, name: str) -> Policy | None:
        """The policy with this name."""
        if name == MANAGEMENT:
            return BUILTIN
        return next((each for each in self.policies.values() if each.name == name), None)

    def rules_of(self, token: Token) -> Iterator[Rule]:
        """All rules of the token; a policy that is gone grants nothing."""
        for policy_id in token.policies:
            if policy_id == MANAGEMENT_ID:
                yield from rules.EVERYTHING
            elif policy := self.policies.get(policy_id):
                yield from language.parsed(policy.text)
        for service in token.services:
            yield from rules.of_service(service)

    def put_token(self, token: Token) -> Token:
        """The token is kept. Raises Refused for a secret that another one has, or a policy that is not there."""
        for policy_id in token.policies:
            if self.policy(policy_id) is None:
                raise Refused(500, f"No such ACL policy with ID {policy_id}")
        other = self._by_digest.get(token.digest)
        if other and other.accessor != token.accessor:
            raise Refused(500, "Invalid Token: the SecretID is already in use")
        old = self.tokens.get(token.accessor)
        if old is None and len(self.tokens) >= TOKENS_AT_MOST:
            raise Refused(500, f"there are {TOKENS_AT_MOST} tokens already: delete some")
        kept = _stamped(token, old, self._ledger)
        self.load([kept])
        self._ledger.put(TOKEN, token.accessor, kept)
        return kept

    def drop_token(self, accessor: str) -> None:
        """There is no such token any more."""
        if token := self.tokens.pop(accessor, None):
            self._by_digest.pop(token.digest, None)
            self._ledger.drop(TOKEN, accessor)
            self.version += 1

    def put_policy(self, policy: Policy) -> Policy:
        """The policy is kept. Raises Refused for a name that another one has."""
        other = self.policy_named(policy.name)
        if other and other.id != policy.id:
            raise Refused(500, f'Invalid Policy: A Policy with Name "{policy.name}" already exists')
        old = self.policies.get(policy.id)
        if old is None and len(self.policies) >= POLICIES_AT_MOST:
            raise Refused(500, f"there are {POLICIES_AT_MOST} policies already: delete some")
        kept = _stamped(policy, old, self._ledger)
        self.load([kept])
        self._ledger.put(POLICY, policy.id, kept)
        return kept

    def drop_policy(self, policy_id: str) -> None:
        """There is no such policy any more; what it granted is granted to nobody."""
        if self.policies.pop(policy_id, None):
            self._ledger.drop(POLICY, policy_id)
            self.version += 1

    def become(self, tokens: Iterable[Token], policies: Iterable[Policy]) -> None:
        """These are all that there are. Nothing is refused: names and secrets may have been others' meanwhile."""
        wanted, meant = {each.accessor: each for each in tokens}, {each.id: each for each in policies}
        for accessor in sorted(self.tokens.keys() - wanted.keys()):
            self.drop_token(accessor)
        for policy_id in sorted(self.policies.keys() - meant.keys()):
            self.drop_policy(policy_id)
        for policy in meant.values():
            if _differs(policy, was := self.policies.get(policy.id)):
                kept_policy = _stamped(policy, was, self._ledger)
                self.load([kept_policy])
                self._ledger.put(POLICY, policy.id, kept_policy)
        for token in wanted.values():
            if _differs(token, old := self.tokens.get(token.accessor)):
                kept = _stamped(token, old, self._ledger)
                self.load([kept])
                self._ledger.put(TOKEN, token.accessor, kept)

    def load(self, rows: Iterable[Token | Policy]) -> None:
        """These are kept already."""
        for row in rows:
            if isinstance(row, Policy):
                self.policies[row.id] = row
                continue
            old = self.tokens.get(row.accessor)
            if old and self._by_digest.get(old.digest) is old:
                del self._by_digest[old.digest]
            self.tokens[row.accessor] = row
            if row.digest:
                self._by_digest[row.digest] = row
        self.version += 1


def _stamped(new: _Row, old: _Row | None, ledger: Ledger) -> _Row:
    index = ledger.bump()
    return msgspec.structs.replace(new, create_index=old.create_index if old else index, modify_index=index)


def _differs(new: _Row, old: _Row | None) -> bool:
    return old is None or new != msgspec.structs.replace(
        old, create_index=new.create_index, modify_index=new.modify_index
    )
