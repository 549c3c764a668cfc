"""What a rollout calls: smoke tests, hooks, numbers from elsewhere, and whoever wants to be told. All of it bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterable, Mapping
from pathlib import Path

import aiohttp
import msgspec
import structlog

from milkrun.consul.silence import why
from milkrun.model import Instance
from milkrun.rollout.analysis.verdict import Finding, Outcome
from milkrun.rollout.plan import Plan
from milkrun.settings.placeholders import filled
from milkrun.settings.rollout import CheckSettings, HookSettings, Phase, SmokeSettings

SAID_BYTES_AT_MOST = 4000
BODY_BYTES_AT_MOST = 1 << 20
TOLD_TIMES = 3


class Result(msgspec.Struct, frozen=True):
    """Whether it went well, and what it said."""

    good: bool
    said: str


class Calls:
    """Calls for one engine. Programs run in `folder`, the environment's. Close it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """No connection is left."""
        await self._http.close()

    # Smoke tests

    async def smoke(self, plan: Plan, instances: Iterable[Instance]) -> Result:
        """Whether every instance passes, all at once; the first that does not is told of."""
        settings = plan.settings.smoke
        found = list(instances)
        if not settings.path and not settings.command:
            return Result(True, "nothing to test with: `rollout.smoke` names neither a path nor a command")
        if not found:
            return Result(False, f"there is no healthy instance of {plan.version} to test")
        async with asyncio.TaskGroup() as tasks:
            tests = [tasks.create_task(self._smoke(settings, plan, one)) for one in found]
        for test in tests:
            if not test.result().good:
                return test.result()
        return Result(True, f"{len(found)} instances of {plan.version} passed")

    async def _smoke(self, settings: SmokeSettings, plan: Plan, one: Instance) -> Result:
        host = f"[{one.address}]" if ":" in one.address else one.address
        url = f"http://{host}:{one.port}"
        if settings.path:
            result = await self._answers(f"{url}{settings.path}", settings)
            if not result.good:
                return Result(False, f"{one.id}: {result.said}")
        if settings.command:
            values = {"url": url, "address": one.address, "port": one.port, "instance": one.id}
            result = await self._program(settings.command, plan, settings.timeout_s, values)
            if not result.good:
                return Result(False, f"{one.id}: {result.said}")
        return Result(True, f"{one.id} passed")

    async def _answers(self, url: str, settings: SmokeSettings) -> Result:
        try:
            status, body = await self._get(url, settings.timeout_s)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Result(False, f"GET {url}: {why(error, settings.timeout_s)}")
        if status != settings.status:
            return Result(False, f"GET {url} answered {status}, not {settings.status}")
        if settings.contains and settings.contains not in body:
            return Result(False, f"GET {url} answered without {settings.contains!r}")
        return Result(True, f"GET {url} answered {status}")

    # Hooks

    async def hooks(self, plan: Plan, phase: Phase, about: Mapping[str, object]) -> Result:
        """Whether all hooks of the phase went well, one after the other, as they stand in the settings."""
        for hook in plan.settings.hooks:
            if hook.phase == phase:
                result = await self._hook(hook, plan, about)
                if not result.good:
                    return result
        return Result(True, f"the hooks of {phase} have run")

    async def _hook(self, hook: HookSettings, plan: Plan, about: Mapping[str, object]) -> Result:
        if hook.command:
            return await self._program(hook.command, plan, hook.timeout_s, about)
        return await self._post(hook.url, about, hook.timeout_s)

    async def tell(self, urls: Iterable[str], about: Mapping[str, object]) -> None:
        """Each of them has been told, or it was tried a few times."""
        log = structlog.get_logger("rollouts")
        for url in urls:
            for turn in range(TOLD_TIMES):
                result = await self._post(url, about, 10.0)
                if result.good:
                    break
                log.warning("could not be told", url=url, why=result.said)
                await asyncio.sleep(2.0**turn)

    async def _post(self, url: str, about: Mapping[str, object], limit_s: float) -> Result:
        try:
            async with asyncio.timeout(limit_s), self._http.post(url, json=dict(about)) as reply:
                good = 200 <= reply.status < 300
                return Result(good, f"POST {url} answered {reply.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Result(False, f"POST {url}: {why(error, limit_s)}")

    # Numbers from elsewhere

    async def numbers(self, plan: Plan) -> list[Finding]:
        """What each check says now. A number that cannot be had is inconclusive, never good."""
        checks = plan.settings.analysis.checks
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._number(check, plan)) for check in checks]
        return [task.result() for task in asked]

    async def _number(self, check: CheckSettings, plan: Plan) -> Finding:
        try:
            number = await self._asked(check, plan)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, LookupError, TypeError) as error:
            said = f"{check.name} cannot be had: {why(error, check.timeout_s)}"
            return Finding(
                metric=check.name, outcome=Outcome.INCONCLUSIVE, canary=None, stable=None, needs=0, said=said
            )
        low, high = check.min, check.max
        good = (low is None or number >= low) and (high is None or number <= high)
        bound = f"at least {low:g}" if low is not None and number < low else f"at most {high or 0:g}"
        said = f"{check.name} is {number:g}" + ("" if good else f" and has to be {bound}")
        outcome = Outcome.PASS if good else Outcome.FAIL
        return Finding(metric=check.name, outcome=outcome, canary=number, stable=None, needs=0, said=said)

    async def _asked(self, check: CheckSettings, plan: Plan) -> float:
        values = _values(plan)
        if check.command:
            result = await self._program(check.command, plan, check.timeout_s, {})
            if not result.good:
                raise ValueError(result.said)
            return _number(result.said.strip())
        if check.prometheus:
            query = filled([check.query], values)[0]
            _, body = await self._get(
                f"{check.prometheus.rstrip('/')}/api/v1/query", check.timeout_s, {"query": query}
            )
            return _number(json.loads(body)["data"]["result"][0]["value"][1])
        _, body = await self._get(filled([check.url], values)[0], check.timeout_s)
        found = json.loads(body)
        for name in check.field.split(".") if check.field else ():
            found = found[name]
        return _number(found)

    # The two ways out

    async def _get(
        self, url: str, limit_s: float, params: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        async with (
            asyncio.timeout(limit_s),
            self._http.get(url, params=params, allow_redirects=False) as reply,
        ):
            body = await reply.content.read(BODY_BYTES_AT_MOST)
            return reply.status, body.decode(errors="replace")

    async def _program(
        self, command: list[str], plan: Plan, limit_s: float, values: Mapping[str, object]
    ) -> Result:
        """The program ended with 0 in time; what it printed last is what it said. Its group is gone afterwards."""
        known = _values(plan) | dict(values)
        arguments = filled(command, known)
        variables = {
            f"MILKRUN_{name.upper()}": str(value) for name, value in known.items() if name != "python"
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                cwd=self._folder,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                env=_environment() | variables,
                start_new_session=True,
            )
        except OSError as error:
            return Result(
                False, f"{arguments[0]} cannot be started: {(error.strerror or str(error)).lower()}"
            )
        try:
            async with asyncio.timeout(limit_s):
                said = await _last_words(process)
                status = await process.wait()
        except TimeoutError:
            return Result(False, f"{arguments[0]} took more than {limit_s:g} s and was stopped")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if status:
            return Result(False, f"{arguments[0]} ended with {status}: {' '.join(said.split())[-300:]}")
        return Result(True, said)


async def _last_words(process: asyncio.subprocess.Process) -> str:
    kept = b""
    if process.stdout:
        while chunk := await process.stdout.read(1 << 16):
            kept = (kept + chunk)[-SAID_BYTES_AT_MOST:]
    return kept.decode(errors="replace")


def _values(plan: Plan) -> dict[str, object]:
    return {
        "python": sys.executable,
        "service": plan.service,
        "version": plan.version,
        "stable": plan.stable or "",
        "rollout": plan.id,
    }


def _environment() -> dict[str, str]:
    """The engine's own, but for the registry's token: who holds it may do everything."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_HTTP_TOKEN")}


def _number(found: object) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise TypeError(f"{found!r} is not a number")
    number = float(found)
    if math.isnan(number):
        raise ValueError("it is not a number")
    return number
