"""What `[rollout]` in `services/<name>.toml` says: how a new version takes over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from milkrun.errors import InputRefused
from milkrun.settings import rollout_steps
from milkrun.settings.rollout_steps import STEPS_AT_MOST, Step

if TYPE_CHECKING:
    from milkrun.settings.service import ServiceSettings
    from milkrun.settings.toml import Document
    from milkrun.settings.toml_lines import Path

Strategy = Literal["rolling", "blue-green", "canary"]
Phase = Literal["before", "provisioned", "promoted", "done", "taken-back"]

CANARY = (
    "smoke",
    "weight 5%",
    "analyse 30s",
    "weight 25%",
    "analyse 30s",
    "weight 50%",
    "analyse 30s",
)
"""The steps of a canary that names none."""
LIMIT_S_AT_MOST = 7 * 86_400.0

_URL = re.compile(r"https?://[!-~]{1,1000}")
_PATH = re.compile(r"/[!-~]{0,1000}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class SmokeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How each new instance is tested directly: GET `path` has to answer `status` with `contains` in its body, and
    `command` has to end with 0 (`{url}`, `{address}`, `{port}`, `{service}`, `{version}` and `{python}` are filled in).
    Without both, the step says that there is nothing to test with.
    """

    path: str = ""
    status: int = 200
    contains: str = ""
    command: list[str] = []
    timeout_s: float = 30.0


class HookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something to do at a phase of each rollout: `command`, or a POST to `url`. One that fails takes the rollout back,
    but for those of the phases `done` and `taken-back`, which are only told of.
    """

    phase: Phase
    command: list[str] = []
    url: str = ""
    timeout_s: float = 60.0


class CheckSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number from elsewhere that has to stay within `min` and `max`: of a Prometheus server at `prometheus` by
    `query`, of a `command`'s output, or of the answer to a GET of `url` (a number, or JSON with `field` in it).
    `{service}`, `{version}` and `{stable}` are filled in.
    """

    name: str
    prometheus: str = ""
    query: str = ""
    command: list[str] = []
    url: str = ""
    field: str = ""
    min: float | None = None
    max: float | None = None
    timeout_s: float = 10.0


class AnalysisSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the new version is bad.

    Guards act at once: surely more than `failures_at_most` percent of the requests of the last `guard_window_s`
    seconds, if they are `guard_requests` or more; surely more than 1 % of the answers slower than `p99_ms_at_most` (0:
    no guard); more than `restarts_at_most` restarts of new instances. "Surely" is what chance does once in a thousand
    times.

    Compared with the old version at the same time: its share of failures may be `failures_worse_by` percentage points
    higher, its latency `latency_worse_by` percent. `false_alarm` is how often, at most, two versions that are the same
    may be told apart, however often one looks and whatever is compared.

    A version passes when one whose failures are `failures_matter_from` percentage points above the old one's, or whose
    instances are `latency_matters_from` percent slower, would have been found 9 times in 10, and never with fewer than
    `min_requests` on either side. A version that is worse fails as soon as that is sure, with fewer requests too.

    `inconclusive` is what follows when there was no verdict for `extend_s` more seconds: hold and ask, or take back.
    """

    failures_at_most: float = 5.0
    guard_window_s: float = 30.0
    guard_requests: int = 50
    p99_ms_at_most: float = 0.0
    restarts_at_most: int = 0
    failures_worse_by: float = 0.5
    failures_matter_from: float = 3.0
    latency_worse_by: float = 10.0
    latency_matters_from: float = 50.0
    false_alarm: float = 0.01
    min_requests: int = 500
    extend_s: float = 600.0
    inconclusive: Literal["hold", "abort"] = "hold"
    checks: list[CheckSettings] = []


class RolloutSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `[rollout]`.

    `steps` are those of a canary (settings/rollout_steps.py). `batch`, `surge` and `unavailable` are for rolling: how
    many instances are replaced at a time, how many more than usual may run, and how many fewer may serve. For `bake_s`
    seconds after the last step the old instances stay warm. A new instance has `healthy_limit_s` to become healthy, a
    step `progress_limit_s` to come to its end (waits that were asked for apart), the whole rollout `total_limit_s`.
    With `on_failure = "hold"` a bad version is not taken back but told of. `notify` are URLs that hear of it.
    """

    strategy: Strategy = "canary"
    steps: list[str] = msgspec.field(default_factory=lambda: list(CANARY))
    batch: int = 1
    surge: int = 1
    unavailable: int = 0
    bake_s: float = 60.0
    healthy_limit_s: float = 300.0
    progress_limit_s: float = 600.0
    total_limit_s: float = 86_400.0
    on_failure: Literal["take-back", "hold"] = "take-back"
    smoke: SmokeSettings = SmokeSettings()
    hooks: list[HookSettings] = []
    notify: list[str] = []
    analysis: AnalysisSettings = AnalysisSettings()

    @property
    def canary(self) -> list[Step]:
        """The canary's steps as values. They were parsed once already, so none is refused."""
        return [rollout_steps.parse(text) for text in self.steps]


def check(document: Document[ServiceSettings]) -> None:
    """Refuses, with its line, what the types cannot."""
    rollout = document.value.rollout
    at = ("rollout",)
    document.require(
        (*at, "steps"), 1 <= len(rollout.steps) <= STEPS_AT_MOST, f"has to have 1 to {STEPS_AT_MOST} steps"
    )
    for number, text in enumerate(rollout.steps):
        document.check((*at, "steps", number), rollout_steps.parse, text)
    for name, least in (("batch", 1), ("surge", 0), ("unavailable", 0)):
        _within(document, (*at, name), getattr(rollout, name), least, 1000)
    document.require(
        (*at, "surge"),
        rollout.surge + rollout.unavailable > 0,
        "and `unavailable` cannot both be 0: nothing could be replaced",
    )
    _within(document, (*at, "bake_s"), rollout.bake_s, 0, LIMIT_S_AT_MOST)
    for name in ("healthy_limit_s", "progress_limit_s", "total_limit_s"):
        _within(document, (*at, name), getattr(rollout, name), 1, LIMIT_S_AT_MOST)
    document.require(
        (*at, "progress_limit_s"),
        rollout.healthy_limit_s <= rollout.progress_limit_s <= rollout.total_limit_s,
        "has to be at least `healthy_limit_s` and at most `total_limit_s`",
    )
    _check_smoke(document, rollout.smoke)
    for number, hook in enumerate(rollout.hooks):
        _check_hook(document, (*at, "hooks", number), hook)
    for number, url in enumerate(rollout.notify):
        document.check((*at, "notify", number), _url, url)
    _check_analysis(document, rollout.analysis)


def _check_smoke(document: Document[ServiceSettings], smoke: SmokeSettings) -> None:
    at = ("rollout", "smoke")
    document.require(
        (*at, "path"), not smoke.path or bool(_PATH.fullmatch(smoke.path)), "has to be as `/health`"
    )
    _within(document, (*at, "status"), smoke.status, 100, 599)
    _within(document, (*at, "timeout_s"), smoke.timeout_s, 0.1, 3600)
    document.require((*at, "contains"), bool(smoke.path) or not smoke.contains, "needs a `path`")


def _check_hook(document: Document[ServiceSettings], at: Path, hook: HookSettings) -> None:
    document.require(
        at, bool(hook.command) != bool(hook.url), "has to have a `command` or a `url`, one of both"
    )
    if hook.url:
        document.check((*at, "url"), _url, hook.url)
    _within(document, (*at, "timeout_s"), hook.timeout_s, 0.1, 3600)


def _check_analysis(document: Document[ServiceSettings], analysis: AnalysisSettings) -> None:
    at = ("rollout", "analysis")
    for name, least, most in (
        ("failures_at_most", 0, 100),
        ("guard_window_s", 1, 3600),
        ("guard_requests", 1, 1_000_000),
        ("p99_ms_at_most", 0, 1_000_000),
        ("restarts_at_most", 0, 1000),
        ("failures_worse_by", 0, 100),
        ("failures_matter_from", 0, 100),
        ("latency_worse_by", 0, 1000),
        ("latency_matters_from", 0, 1000),
        ("false_alarm", 0.0001, 0.2),
        ("min_requests", 1, 10_000_000),
        ("extend_s", 0, LIMIT_S_AT_MOST),
    ):
        _within(document, (*at, name), getattr(analysis, name), least, most)
    for name, allowed in (
        ("failures_matter_from", "failures_worse_by"),
        ("latency_matters_from", "latency_worse_by"),
    ):
        document.require(
            (*at, name), getattr(analysis, name) > getattr(analysis, allowed), f"has to be above `{allowed}`"
        )
    for number, each in enumerate(analysis.checks):
        _check_number(document, (*at, "checks", number), each)


def _check_number(document: Document[ServiceSettings], at: Path, check: CheckSettings) -> None:
    document.require((*at, "name"), bool(_NAME.fullmatch(check.name)), "has to be as `error-budget`")
    sources = [bool(check.prometheus), bool(check.command), bool(check.url)]
    document.require(at, sum(sources) == 1, "has to have one of `prometheus`, `command` and `url`")
    document.require(at, bool(check.prometheus) == bool(check.query), "`prometheus` and `query` go together")
    for name in ("prometheus", "url"):
        if text := getattr(check, name):
            document.check((*at, name), _url, text)
    document.require(at, check.min is not None or check.max is not None, "has to have `min` or `max`")
    _within(document, (*at, "timeout_s"), check.timeout_s, 0.1, 300)


def _url(text: str) -> None:
    if not _URL.fullmatch(text):
        raise InputRefused("is not an http:// or https:// URL")


def _within(document: Document[ServiceSettings], at: Path, number: float, least: float, most: float) -> None:
    document.require(at, least <= number <= most, f"has to be {least:g} to {most:g}, not {number:g}")
