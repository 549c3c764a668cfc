"""Writes what a commit asks for into the registry: the settings first, then each service's wish.

Every write is a transaction that holds only while this gitsync holds the lock on its report, and only if the
key that says which commit is there was not written meanwhile. So a gitsync that was stopped between reading
and writing, and goes on when another one has taken over, changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import msgspec
import structlog

from milkrun.consul import Registry, keys
from milkrun.consul.client import kv_cas, kv_check_session, kv_delete, kv_delete_cas, kv_set
from milkrun.errors import InputRefused, MilkrunError, RegistryRefused
from milkrun.gitsync import plan
from milkrun.gitsync.plan import Change, Decision, Held, InSync
from milkrun.gitsync.tree import RESERVED, Wanted
from milkrun.model import CommitMark, Refusal, ServiceName, service_name
from milkrun.settings.environment import PublishedEnvironment
from milkrun.settings.folder import SETTINGS_FILE
from milkrun.settings.service import PublishedService

TRIES = 3
TRY_AGAIN_S = 0.01
AT_ONCE = 8

_Plan: TypeAlias = Callable[[], Awaitable[Decision]]
_Step: TypeAlias = tuple[str, _Plan]
"""A file of the repository, and how to find out what has to change for it."""


class LostLock(MilkrunError):
    """Another gitsync holds the lock now, or nobody: nothing was written."""


class Outcome(msgspec.Struct, kw_only=True):
    """What came of one pass: files that turned out not to be publishable, and what else went wrong with which."""

    refused: list[Refusal] = []
    troubles: list[tuple[str, str]] = []

    @property
    def trouble(self) -> str:
        """What went wrong, in one line; the same thing is said once for all its files."""
        files: dict[str, list[str]] = {}
        for file, why in sorted(self.troubles):
            files.setdefault(why, []).append(file)
        return "; ".join(f"{', '.join(names)}: {why}" for why, names in files.items())


class Publisher:
    """Publishes under the lock that `session` has on gitsync's report."""

    def __init__(self, registry: Registry, session: Callable[[], str]) -> None:
        self._registry = registry
        self._session = session
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._log = structlog.get_logger("gitsync")

    async def publish(self, wanted: Wanted, mark: CommitMark) -> Outcome:
        """The registry says what the commit `mark` asks for, but for what the outcome names.

        Raises LostLock, or RegistryUnreachable: then some of it may be written, and a later pass does the rest.
        """
        outcome = Outcome()
        await self._all(await self._settings_steps(wanted, mark, outcome), mark, outcome)
        names = [*wanted.wishes, *await self._gone(wanted, mark, outcome)]
        await self._all(
            [(_deploy_file(name), self._wish(name, wanted, mark)) for name in names], mark, outcome
        )
        return outcome

    # The settings

    async def _settings_steps(self, wanted: Wanted, mark: CommitMark, outcome: Outcome) -> list[_Step]:
        steps: list[_Step] = []
        if wanted.environment:
            published = PublishedEnvironment(mark=mark, settings=wanted.environment)
            steps.append((SETTINGS_FILE, self._published(keys.ENVIRONMENT, published)))
        there = {pair.key: pair for pair in await self._registry.entries(keys.SERVICES)}
        for name, settings in wanted.services.items():
            key = keys.service_settings(name)
            service = PublishedService(mark=mark, settings=settings)
            if not isinstance(plan.plan_published(key, service, there.pop(key, None)), InSync):
                steps.append((_service_file(key), self._published(key, service)))
        gone = [key for key in there if _service_file(key) not in wanted.kept]
        if gone and not wanted.services and not _any_kept(wanted, "services/"):
            how = "to end all services, do it in their deploy files"
            outcome.troubles.append(("services/", _looks_empty(mark, map(_service_file, gone), how)))
        else:
            steps += [(_service_file(key), self._unpublished(key, mark)) for key in gone]
        return steps

    def _published(self, key: str, published: PublishedEnvironment | PublishedService) -> _Plan:
        async def step() -> Decision:
            return plan.plan_published(key, published, await self._registry.get(key))

        return step

    def _unpublished(self, key: str, mark: CommitMark) -> _Plan:
        async def step() -> Decision:
            stored = await self._registry.get(key)
            return plan.plan_unpublished(stored, mark, PublishedService) if stored else InSync()

        return step

    # The wishes

    def _wish(self, name: ServiceName, wanted: Wanted, mark: CommitMark) -> _Plan:
        async def step() -> Decision:
            pairs = await self._registry.entries(keys.wish_prefix(name))
            return plan.plan_wish(name, wanted.wishes.get(name), pairs, mark)

        return step

    async def _gone(self, wanted: Wanted, mark: CommitMark, outcome: Outcome) -> list[ServiceName]:
        """The services that a commit published and that have no deploy file now; none while that looks wrong."""
        gone = []
        for folder in await self._registry.folders():
            name = _as_service(folder)
            if not name or name in wanted.wishes or _deploy_file(name) in wanted.kept:
                continue
            if plan.is_published(await self._registry.get(keys.commit(name))):
                gone.append(name)
        if gone and not wanted.wishes and not _any_kept(wanted, "deploy/"):
            how = "to end all services, leave each file there with {} in it"
            outcome.troubles.append(("deploy/", _looks_empty(mark, map(_deploy_file, gone), how)))
            return []
        return gone

    # The one way in which anything is written

    async def _all(self, steps: list[_Step], mark: CommitMark, outcome: Outcome) -> None:
        """Every step is settled, a few at a time; one that fails for itself does not keep back the others."""

        async def gated(file: str, step: _Plan) -> None:
            async with self._gate:
                await self._settle(file, step, mark, outcome)

        results = await asyncio.gather(*(gated(*step) for step in steps), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _settle(self, file: str, step: _Plan, mark: CommitMark, outcome: Outcome) -> None:
        try:
            for _ in range(TRIES):
                match await step():
                    case InSync():
                        return
                    case Held(why=why, refused=True):
                        outcome.refused.append(Refusal(file=file, line=0, reason=why, commit=mark.commit))
                        return
                    case Held(why=why):
                        outcome.troubles.append((file, why))
                        return
                    case Change() as change:
                        if await self._written(change, file, mark):
                            return
                await asyncio.sleep(TRY_AGAIN_S * (0.5 + random.random()))
            outcome.troubles.append((file, f"its keys change under our hands; tried {TRIES} times"))
        except RegistryRefused as error:
            outcome.troubles.append((file, error.message))

    async def _written(self, change: Change, file: str, mark: CommitMark) -> bool:
        """True when the change is made; False when its guard was written since it was read."""
        answer = await self._registry.txn(_operations(change, self._session()))
        if answer.errors:
            if any(error.op_index == 0 for error in answer.errors):
                raise LostLock(
                    f"the lock on {keys.SYNC_REPORT} is not ours any more: {answer.errors[0].what}"
                )
            return False
        if change.same_commit:
            changed = sorted({*change.puts, *change.deletes})
            self._log.warning("keys that were changed by hand are as git says again", file=file, keys=changed)
        elif change.puts or change.deletes or not change.index or change.value is None:
            puts = {key: value.decode() for key, value in change.puts.items()}
            gone = {"deleted": [*change.deletes, *([] if change.value else [change.guard])]}
            fields = ({"set": puts} if puts else {}) | (gone if gone["deleted"] else {})
            self._log.info("published", file=file, commit=mark.commit[:10], **fields)
        return True


def _operations(change: Change, session: str) -> list[dict[str, Any]]:
    """The change as a transaction: the two guards, then what is freed, then what is set."""
    if change.value is None:
        guard = kv_delete_cas(change.guard, change.index)
    else:
        guard = kv_cas(change.guard, change.value, change.index)
    deletes = [kv_delete(key) for key in change.deletes]
    puts = [kv_set(key, value) for key, value in change.puts.items()]
    return [kv_check_session(keys.SYNC_REPORT, session), guard, *deletes, *puts]


def _looks_empty(mark: CommitMark, gone: Iterable[str], how: str) -> str:
    return (
        f"the commit {mark.commit[:10]} has no files there at all, so nothing was taken away of what was there "
        f"({', '.join(sorted(gone))}); {how}"
    )


def _any_kept(wanted: Wanted, folder: str) -> bool:
    return any(path.startswith(folder) for path in wanted.kept)


def _deploy_file(name: str) -> str:
    return f"deploy/{name}.json"


def _service_file(key: str) -> str:
    return f"services/{key.removeprefix(keys.SERVICES)}.toml"


def _as_service(folder: str) -> ServiceName | None:
    try:
        return service_name(folder) if folder != RESERVED else None
    except InputRefused:
        return None
