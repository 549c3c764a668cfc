"""How often each way to judge a rollout takes back a good version, and how often and how soon it finds a bad one.

    .venv/bin/python benchmarks/analysis.py [--rollouts N]

Rollouts by dice (tests/unit/rollout/analysis/trials.py), each answer drawn, the same ones for every way:

- `analysis` is src/milkrun/rollout/analysis with its default settings.
- `thresholds` is Flagger's rule: at each interval of 10 s, a check fails when fewer than 99 % of the new version's
  requests succeeded, or its 99th percentile was over 500 ms; the fifth failed check takes it back. Flagger's own
  interval is a minute, which would be one check or two in these rollouts.
- `pooled` is Mann-Whitney's test as Kayenta uses it, on requests: at the end of each window the latencies of both
  versions, at 98 %, with a ratio of the medians of 1.1 at least; and their failures in the same way, by half a point.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from unit.rollout.analysis.trials import Ended, Rollout, Version, World, judged

from milkrun.rollout.analysis.verdict import Outcome

CHECK_S, CHECKS = 10.0, 5
SLOW_MS, FAILED = 500.0, 0.01
SIGNIFICANT, RATIO, POINTS = 0.02, 1.1, 0.005

BASE = World(each=True)
WORLDS = {
    "equal, instances all alike": replace(BASE, noise=0.0),
    "equal, instances differ by 5 %": replace(BASE, noise=0.05),
    "equal, instances differ by 10 %": BASE,
    "equal, 1 instance against 3": replace(BASE, canary=1, stable=3),
    "equal, both fail 20 % now and then": replace(BASE, outage=0.05),
    "equal, both fail 1.5 %": replace(BASE, fails=0.015),
    "1 % of failures, not 0.1 %": replace(BASE, canary_fails=0.01),
    "3.1 % of failures": replace(BASE, canary_fails=0.031),
    "5 % of failures": replace(BASE, canary_fails=0.05),
    "5 % of failures after 60 s": replace(BASE, canary_fails=0.05, good_s=60),
    "20 % slower": replace(BASE, slower=1.2),
    "50 % slower": replace(BASE, slower=1.5),
    "50 % slower, 6 instances against 6": replace(BASE, slower=1.5, canary=6, stable=6),
    "twice as slow": replace(BASE, slower=2.0),
    "twice as slow, 1 instance against 3": replace(BASE, slower=2.0, canary=1, stable=3),
}


def thresholds(world: World, seed: int) -> Ended:
    """One rollout by Flagger's rule."""
    rollout, failed, window = Rollout(world, np.random.default_rng(seed)), 0, 0
    for window in rollout.windows():
        for _ in range(int(world.window_s / CHECK_S)):
            failures, batches = rollout.canary.failures, len(rollout.canary.times)
            rollout.run(window, CHECK_S)
            times = np.concatenate(rollout.canary.times[batches:])
            if not len(times):
                continue
            rate = (rollout.canary.failures - failures) / len(times)
            failed += rate > FAILED or np.percentile(times, 99) > SLOW_MS
            if failed >= CHECKS:
                return ended(Outcome.FAIL, rollout, window)
    return ended(Outcome.PASS, rollout, window)


def pooled(world: World, seed: int) -> Ended:
    """One rollout by Mann-Whitney's test on pooled requests."""
    rollout, window = Rollout(world, np.random.default_rng(seed)), 0
    for window in rollout.windows():
        rollout.run(window, world.window_s)
        canary, stable = (np.concatenate(one.times) for one in (rollout.canary, rollout.stable))
        slower = np.median(canary) >= RATIO * np.median(stable) and _greater(canary, stable)
        rates = [one.failures / one.requests.sum() for one in (rollout.canary, rollout.stable)]
        if slower or (
            rates[0] - rates[1] > POINTS and _greater(_failed(rollout.canary), _failed(rollout.stable))
        ):
            return ended(Outcome.FAIL, rollout, window)
    return ended(Outcome.PASS, rollout, window)


def _greater(canary: np.ndarray, stable: np.ndarray) -> bool:
    return bool(stats.mannwhitneyu(canary, stable, alternative="greater").pvalue < SIGNIFICANT)


def _failed(version: Version) -> np.ndarray:
    """A 1 for each request that failed, a 0 for the others."""
    requests = int(version.requests.sum())
    return np.repeat([1, 0], [version.failures, requests - version.failures])


def ended(outcome: Outcome, rollout: Rollout, window: int) -> Ended:
    """How it ended, as trials.py says it."""
    return Ended(outcome, rollout.seconds, window, rollout.hurt / max(1, rollout.requests))


def cell(rule: Callable[[World, int], Ended], world: World, rollouts: int) -> str:
    """In which part of the rollouts the version was taken back, and after how many seconds (the median)."""
    ends = [rule(world, seed) for seed in range(1000, 1000 + rollouts)]
    back = [one.seconds for one in ends if one.outcome is Outcome.FAIL]
    part = f"{100 * len(back) / rollouts:.1f} %"
    return f"{part}, {np.median(back):.0f} s" if back else part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=200)
    options = parser.parse_args()
    print("| Taken back, and after | analysis | thresholds | pooled |\n|---|---|---|---|")
    for name, world in WORLDS.items():
        cells = [cell(rule, world, options.rollouts) for rule in (judged, thresholds, pooled)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
