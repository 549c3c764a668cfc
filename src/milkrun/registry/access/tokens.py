"""The tokens, roles and policies that were made here, as the state keeps them. Pure.

A token's secret is known only by its SHA-256: secrets are random and long, so a slow hash would add nothing.
The registry's own token is not among them (see own_token.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TypeVar

import msgspec

from milkrun.registry.access import language
from milkrun.registry.access.grants import MANAGEMENT_ID, Grants
from milkrun.registry.access.rules import Rule
from milkrun.registry.ledger import Ledger
from milkrun.registry.refusal import Refused

TOKEN, POLICY, ROLE = "token", "policy", "role"
ANONYMOUS_ID = "00000000-0000-0000-0000-000000000002"
OWN_ID = "00000000-0000-0000-0000-000000000003"
MANAGEMENT = "global-management"
TOKENS_AT_MOST = 10_000
POLICIES_AT_MOST = 10_000
ROLES_AT_MOST = 10_000


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Rules under a name."""

    id: str
    name: str
    description: str = ""
    text: str = ""
    create_index: int = 0
    modify_index: int = 0


class Role(Grants, frozen=True, kw_only=True):
    """What tokens that have this role may do besides what they may do themselves."""

    id: str
    name: str
    description: str = ""
    create_index: int = 0
    modify_index: int = 0


class Token(Grants, frozen=True, kw_only=True):
    """Who holds the secret with this digest (hex) may do what it grants, and what its roles (by id) do.

    `expires` is in seconds of the wall clock: from then on it is worth nothing. `local` is told and changes
    nothing: there is one datacenter.
    """

    accessor: str
    digest: str
    description: str = ""
    roles: list[str] = msgspec.field(default_factory=list)
    local: bool = False
    expires: float | None = None
    created: str = ""
    create_index: int = 0
    modify_index: int = 0


BUILTIN = Policy(id=MANAGEMENT_ID, name=MANAGEMENT, description="Builtin Policy that grants unlimited access")
ANONYMOUS = Token(accessor=ANONYMOUS_ID, digest="", description="Anonymous Token")


def digest_of(secret: bytes) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret).hexdigest()


_Row = TypeVar("_Row", Token, Policy, Role)
_AnyRow = Token | Policy | Role


class Tokens:
    """`version` moves with every change, so that what was derived can be thrown away.

    Tokens are kept by their accessor in lower case: it is a number, however it is written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.version = 0
        self.tokens: dict[str, Token] = {}
        self.policies: dict[str, Policy] = {}
        self.roles: dict[str, Role] = {}
        self._by_digest: dict[str, Token] = {}

    def holder(self, digest: str) -> Token | None:
        """The token whose secret has this digest."""
        return self._by_digest.get(digest)

    def token(self, accessor: str) -> Token | None:
        """The token with this accessor."""
        return self.tokens.get(accessor.lower())

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

    def role_named(self, name: str) -> Role | None:
        """The role with this name."""
        return next((each for each in self.roles.values() if each.name == name), None)

    def rules_of(self, token: Token) -> Iterator[Rule]:
        """All rules of the token and its roles; a policy or role that is gone grants nothing."""
        for grants in (token, *(self.roles[each] for each in token.roles if each in self.roles)):
            yield from grants.own_rules()
            for policy_id in grants.policies:
                if policy := self.policies.get(policy_id):
                    yield from language.parsed(policy.text)

    def put_token(self, token: Token) -> Token:
        """The token is kept. Raises Refused for a secret that another one has, or what it names and is not there."""
        self._knows_policies(token)
        for role_id in token.roles:
            if role_id not in self.roles:
                raise Refused(500, f'No such ACL role with ID "{role_id}"')
        other = self._by_digest.get(token.digest)
        old = self.token(token.accessor)
        if other and other is not old:
            raise Refused(500, "Invalid Token: the SecretID is already in use")
        _refuse_too_many(self.tokens, old, TOKENS_AT_MOST, "tokens")
        return self._keep(token, old)

    def drop_token(self, accessor: str) -> None:
        """There is no such token any more."""
        if token := self._drop(TOKEN, self.tokens, accessor.lower()):
            self._by_digest.pop(token.digest, None)

    def put_policy(self, policy: Policy) -> Policy:
        """The policy is kept. Raises Refused for a name that another one has."""
        _refuse_namesake(policy, self.policy_named(policy.name), "Policy")
        old = self.policies.get(policy.id)
        _refuse_too_many(self.policies, old, POLICIES_AT_MOST, "policies")
        return self._keep(policy, old)

    def drop_policy(self, policy_id: str) -> None:
        """There is no such policy any more; what it granted is granted to nobody."""
        self._drop(POLICY, self.policies, policy_id)

    def put_role(self, role: Role) -> Role:
        """The role is kept. Raises Refused for a name that another one has, or a policy that is not there."""
        self._knows_policies(role)
        _refuse_namesake(role, self.role_named(role.name), "Role")
        old = self.roles.get(role.id)
        _refuse_too_many(self.roles, old, ROLES_AT_MOST, "roles")
        return self._keep(role, old)

    def drop_role(self, role_id: str) -> None:
        """There is no such role any more; what it granted is granted to nobody."""
        self._drop(ROLE, self.roles, role_id)

    def become(self, tokens: Iterable[Token], policies: Iterable[Policy], roles: Iterable[Role] = ()) -> None:
        """These are all that there are. Nothing is refused: names and secrets may have been others' meanwhile."""
        wanted = {each.accessor.lower(): each for each in tokens}
        meant, played = {each.id: each for each in policies}, {each.id: each for each in roles}
        for accessor in sorted(self.tokens.keys() - wanted.keys()):
            self.drop_token(accessor)
        for role_id in sorted(self.roles.keys() - played.keys()):
            self.drop_role(role_id)
        for policy_id in sorted(self.policies.keys() - meant.keys()):
            self.drop_policy(policy_id)
        self._keep_others(self.policies, meant)
        self._keep_others(self.roles, played)
        self._keep_others(self.tokens, wanted)

    def load(self, rows: Iterable[_AnyRow]) -> None:
        """These are kept already."""
        for row in rows:
            match row:
                case Policy():
                    self.policies[row.id] = row
                case Role():
                    self.roles[row.id] = row
                case Token():
                    self._load_token(row)
        self.version += 1

    def _load_token(self, token: Token) -> None:
        old = self.token(token.accessor)
        if old and self._by_digest.get(old.digest) is old:
            del self._by_digest[old.digest]
        self.tokens[token.accessor.lower()] = token
        if token.digest:
            self._by_digest[token.digest] = token

    def _knows_policies(self, grants: Grants) -> None:
        for policy_id in grants.policies:
            if self.policy(policy_id) is None:
                raise Refused(500, f"No such ACL policy with ID {policy_id}")

    def _drop(self, kind: str, rows: dict[str, _Row], key: str) -> _Row | None:
        """The row that was there before: it is gone, and so it is on the disk."""
        row = rows.pop(key, None)
        if row:
            self._ledger.drop(kind, key)
            self.version += 1
        return row

    def _keep_others(self, rows: Mapping[str, _Row], wanted: Mapping[str, _Row]) -> None:
        """Of the wanted rows, all that differ from those that there are."""
        for key, new in wanted.items():
            if _differs(new, old := rows.get(key)):
                self._keep(new, old)

    def _keep(self, new: _Row, old: _Row | None) -> _Row:
        index = self._ledger.bump()
        kept = msgspec.structs.replace(
            new, create_index=old.create_index if old else index, modify_index=index
        )
        self.load([kept])
        match kept:
            case Token():
                self._ledger.put(TOKEN, kept.accessor.lower(), kept)
            case Policy():
                self._ledger.put(POLICY, kept.id, kept)
            case Role():
                self._ledger.put(ROLE, kept.id, kept)
        return kept


def _differs(new: _Row, old: _Row | None) -> bool:
    return old is None or new != msgspec.structs.replace(
        old, create_index=new.create_index, modify_index=new.modify_index
    )


def _refuse_namesake(new: Policy | Role, other: Policy | Role | None, what: str) -> None:
    if other and other.id != new.id:
        raise Refused(500, f'Invalid {what}: A {what} with Name "{new.name}" already exists')


def _refuse_too_many(rows: Sized, old: _AnyRow | None, at_most: int, what: str) -> None:
    if old is None and len(rows) >= at_most:
        raise Refused(500, f"there are {at_most} {what} already: delete some")
