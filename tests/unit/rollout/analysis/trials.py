"""Rollouts by dice: two versions under load, judged by the analysis or by other rules, as often as one likes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from milkrun.latency import BOUNDS_US
from milkrun.model import InstanceId
from milkrun.rollout.analysis.judge import look
from milkrun.rollout.analysis.verdict import Evidence, InstanceSeen, Outcome, Seen, Verdict
from milkrun.settings.rollout import AnalysisSettings

KEPT = 1024
"""HAProxy's mean is of so many answers."""

SPREAD = math.sqrt(math.expm1(0.25))
"""The standard deviation of a lognormal number with a sigma of .5, as a part of its mean."""

SHAPE = np.diff(
    np.append(
        0.5 * (1 + special.erf((np.log(np.maximum(BOUNDS_US, 1) / 1e5) + 0.125) / (0.5 * math.sqrt(2)))), 1.0
    )
)
"""The part of such answers, with a mean of 100 ms, that falls into each bucket."""


@dataclass(frozen=True)
class World:
    """Two versions, and what is done with them. Latencies are lognormal with a sigma of .5, as are the instances'
    own factors with a sigma of `noise`. What makes the new version bad (`canary_fails`, `slower`) begins after
    `good_s` seconds of the rollout. In an `outage` (its probability at each look) 20 % fail of both.

    With `each` every answer has its own time; without, quicker, only each mean has, and a new one at every look.
    """

    canary: int = 2
    stable: int = 4
    noise: float = 0.1
    fails: float = 0.001
    canary_fails: float | None = None
    slower: float = 1.0
    good_s: float = 0.0
    outage: float = 0.0
    per_s: float = 400.0
    shares: tuple[float, ...] = (0.05, 0.25, 0.5)
    window_s: float = 30.0
    look_s: float = 3.0
    extend_s: float = 300.0
    each: bool = False


@dataclass
class Version:
    """One version's instances, and what they did in this window."""

    factors: np.ndarray
    each: bool
    requests: np.ndarray = field(init=False)
    failures: int = field(init=False)
    buckets: np.ndarray = field(init=False)
    times: list[np.ndarray] = field(init=False)
    last: list[np.ndarray] = field(init=False)
    means: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.last = [np.empty(0) for _ in self.factors]
        self.begin()

    def begin(self) -> None:
        self.requests = np.zeros(len(self.factors), int)
        self.means = np.zeros(len(self.factors))
        self.failures = 0
        self.buckets = np.zeros(len(BOUNDS_US), int)
        self.times = []

    def serve(self, dice: np.random.Generator, count: int, fails: float, slower: float) -> None:
        split = dice.multinomial(count, np.full(len(self.factors), 1 / len(self.factors)))
        self.requests += split
        self.failures += int(dice.binomial(count, fails))
        if self.each:
            self._draw_each(dice, split, slower)
        else:
            off = SPREAD / np.sqrt(np.clip(self.requests, 1, KEPT))
            self.means = 100.0 * slower * self.factors * (1 + off * dice.standard_normal(len(off)))
            self.buckets = np.rint(self.requests.sum() * SHAPE).astype(int)

    def _draw_each(self, dice: np.random.Generator, split: np.ndarray, slower: float) -> None:
        for number, each in enumerate(split):
            times = 100.0 * slower * self.factors[number] * dice.lognormal(-0.125, 0.5, each)
            self.last[number] = np.concatenate((self.last[number], times))[-KEPT:]
            self.times.append(times)
            numbers = np.searchsorted(BOUNDS_US, times * 1000, side="right") - 1
            self.buckets += np.bincount(numbers, minlength=len(BOUNDS_US))
            self.means[number] = self.last[number].mean() if len(self.last[number]) else 0.0

    def seen(self, name: str) -> Seen:
        return Seen(
            requests=int(self.requests.sum()),
            failures=self.failures,
            latency={int(number): int(self.buckets[number]) for number in np.flatnonzero(self.buckets)},
            instances={
                InstanceId(f"{name}-{number}"): InstanceSeen(
                    requests=int(self.requests[number]), failures=0, mean_ms=float(mean)
                )
                for number, mean in enumerate(self.means)
            },
        )


class Rollout:
    """One rollout's traffic, look by look."""

    def __init__(self, world: World, dice: np.random.Generator) -> None:
        self.world, self.dice = world, dice
        self.canary = Version(np.exp(dice.normal(0, world.noise, world.canary)), world.each)
        self.stable = Version(np.exp(dice.normal(0, world.noise, world.stable)), world.each)
        self.seconds = 0.0
        self.requests = self.hurt = 0

    def windows(self) -> Iterator[int]:
        """The numbers of the windows, each begun."""
        for number, _ in enumerate(self.world.shares):
            self.canary.begin()
            self.stable.begin()
            yield number

    def run(self, window: int, seconds: float) -> None:
        world, dice = self.world, self.dice
        share, bad = world.shares[window], self.seconds >= world.good_s
        outage = 0.2 if dice.random() < world.outage else 0.0
        fails = world.canary_fails if bad and world.canary_fails is not None else world.fails
        slower = world.slower if bad else 1.0
        canary, stable = (int(dice.poisson(world.per_s * part * seconds)) for part in (share, 1 - share))
        before = self.canary.failures
        self.canary.serve(dice, canary, fails + outage, slower)
        self.stable.serve(dice, stable, world.fails + outage, 1.0)
        self.requests += canary + stable
        self.hurt += self.canary.failures - before
        self.seconds += seconds


@dataclass(frozen=True)
class Ended:
    """How a rollout ended, after how many seconds and in which window; `hurt` is the part of all requests that the new
    version failed. `verdict` is the last one, `evidence` what was remembered.
    """

    outcome: Outcome
    seconds: float
    window: int
    hurt: float = 0.0
    canary: int = 0
    verdict: Verdict | None = None
    evidence: Evidence | None = None


def judged(world: World, seed: int, settings: AnalysisSettings | None = None) -> Ended:
    """One rollout with the analysis as the engine calls it: at each look, and longer while there is no verdict."""
    settings = settings or AnalysisSettings()
    rollout, evidence = Rollout(world, np.random.default_rng(seed)), Evidence()
    verdict, window = None, 0
    for window in rollout.windows():
        begun = rollout.seconds
        while verdict is None or rollout.seconds < begun + world.window_s + world.extend_s:
            rollout.run(window, world.look_s)
            final = rollout.seconds >= begun + world.window_s
            evidence, verdict = look(
                settings,
                evidence,
                rollout.canary.seen("new"),
                rollout.stable.seen("old"),
                final=final,
                window=str(window),
            )
            if verdict.outcome is not Outcome.INCONCLUSIVE:
                break
        if verdict.outcome is not Outcome.PASS:
            break
    return Ended(
        verdict.outcome,
        rollout.seconds,
        window,
        rollout.hurt / max(1, rollout.requests),
        int(rollout.canary.requests.sum()),
        verdict,
        evidence,
    )


def count(trials: int, rule: Callable[[int], Ended]) -> dict[Outcome, int]:
    """How often each outcome came in so many rollouts, each by the dice of its own number."""
    outcomes = [rule(seed).outcome for seed in range(trials)]
    return {outcome: outcomes.count(outcome) for outcome in Outcome}
