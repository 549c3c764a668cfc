"""Where the database is changed, and what a contract and an undo may touch."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import Conflict
from milkrun.model import CommitId, ServiceName, VersionName, VersionWish, Wish
from milkrun.rollout import back, contracting
from milkrun.rollout.migrating import Migration
from milkrun.rollout.plan import plan
from milkrun.rollout.receipt import Receipt
from milkrun.rollout.state import Phase, State
from milkrun.rollout.steps import Hook, Migrate, Move, Smoke
from milkrun.settings import deploy
from milkrun.settings.migration import PHASES, MigrationSettings
from milkrun.settings.rollout import HookSettings, RolloutSettings

LEDGER = ServiceName("ledger")
V1, V2, V3 = (VersionName(f"{number}.0") for number in (1, 2, 3))
BASE = b'{"version=1.0": {"weight": 100, "replicas": 3}}'


def migration(*phases, digest="d") -> Migration:
    settings = MigrationSettings(url_env="URL")
    return Migration(commit=CommitId("c"), phases=list(phases or PHASES), digest=digest, settings=settings)


def drawn(base=BASE, version=V2, *, strategy="canary", settings=None, **migrations):
    return plan(
        "r", LEDGER, version, base, settings or RolloutSettings(steps=["smoke", "weight 10%", "weight 50%"]),
        strategy=strategy, migrations={version: migration()} | migrations,
    )  # fmt: skip


def told(steps):
    return [step.phase if isinstance(step, Migrate) else step.name for step in steps]


def test_a_canary_expands_first_fills_before_it_is_tested_and_looks_before_each_share():
    assert told(drawn().steps) == [
        "expand",
        "start the new instances",
        "backfill",
        "smoke",
        "verify",
        "weight 10%",
        "verify",
        "weight 50%",
        "verify",
        "all traffic to 2.0",
        "bake",
        "stop the old instances",
    ]


def test_hooks_of_the_new_instances_come_before_the_backfill():
    settings = RolloutSettings(hooks=[HookSettings(phase="provisioned", command=["x"])])
    steps = drawn(settings=settings, strategy="blue-green").steps
    assert told(steps)[:5] == ["expand", "start the new instances", "hooks: provisioned", "backfill", "smoke"]
    assert isinstance(steps[2], Hook)


def test_a_first_version_finds_its_database_ready():
    assert told(drawn(b"{}").steps)[:4] == ["expand", "backfill", "verify", "start the instances"]


def test_what_has_nothing_to_do_has_no_step():
    steps = plan(
        "r", LEDGER, V2, BASE, RolloutSettings(), strategy="blue-green", migrations={V2: migration("expand")}
    ).steps
    assert told(steps)[:3] == ["expand", "start the new instances", "smoke"]


weights = st.integers(min_value=0, max_value=100)


@given(
    st.sampled_from(["canary", "blue-green", "rolling"]),
    st.lists(
        st.sampled_from(["smoke", "weight 5%", "weight 60%", "ramp 50% by 20% every 1s", "pause"]), min_size=1
    ),
    weights,
    st.integers(min_value=1, max_value=4),
)
def test_whatever_the_strategy_the_database_is_ready_for_what_comes(strategy, steps, begun, replicas):
    old, new = VersionWish(weight=100, replicas=replicas), VersionWish(weight=begun, replicas=1)
    base = deploy.written(Wish(versions={V1: old, V2: new}))
    found = drawn(base, strategy=strategy, settings=RolloutSettings(steps=steps)).steps
    share = begun / (100 + begun)
    done: set[str] = set()
    for step in found:
        match step:
            case Migrate():
                done.add(step.phase)
            case Smoke():
                assert {"expand", "backfill"} <= done
            case Move():
                assert "expand" in done
                whole = sum(each.weight or 0 for each in step.versions.values())
                grown = (step.versions[V2].weight or 0) / whole
                if grown > share:
                    assert {"backfill", "verify"} <= done
                    done.discard("verify")  # it is looked at again before the next one
                share = max(share, grown)
    assert "contract" not in told(found)
    assert told(found).count("expand") == told(found).count("backfill") == 1


def test_taken_back_the_schema_goes_last_and_only_where_it_can():
    assert told(back.steps(drawn(), drawn().wish))[-2:] == [back.BEFORE, "undo"]
    kept = plan("r", LEDGER, V2, BASE, RolloutSettings(), migrations={V2: migration("expand", "contract")})
    assert told(back.steps(kept, kept.wish))[-1] == back.BEFORE


def test_an_undo_takes_the_schema_away_when_the_last_instance_has_left():
    settings = RolloutSettings(hooks=[HookSettings(phase="done", command=["x"])])
    found = plan(
        "r", LEDGER, V1, b'{"version=2.0": {"weight": 100, "replicas": 3}}', settings, strategy="undo",
        migrations={V2: migration(), V3: migration()},
    )  # fmt: skip
    assert told(found.steps)[-3:] == ["stop the old instances", "undo", "hooks: done"]
    assert [*found.migrations] == [V2]
    assert "undo" not in told(back.steps(found, found.wish))


def test_other_scripts_are_another_plan():
    other = plan(
        "r", LEDGER, V2, BASE, RolloutSettings(steps=["smoke", "weight 10%", "weight 50%"]), strategy="canary",
        migrations={V2: migration(digest="e")},
    )  # fmt: skip
    assert other.digest != drawn().digest


def receipt(version, *old, strategy="canary", outcome="done") -> Receipt:
    return Receipt(
        rollout="r", service=LEDGER, version=version, old=[*old], strategy=strategy, by="x", outcome=outcome,
        reason="", started=0, ended=0,
    )  # fmt: skip


FORTH = [receipt(V1), receipt(V2, V1), receipt(V2, strategy="contract"), receipt(V3, V2)]


def test_who_came_before_is_known_from_the_receipts():
    assert contracting.before(FORTH, V2) == [V1]
    assert contracting.before(FORTH, V3) == [V1, V2]
    with pytest.raises(Conflict, match=r"no rollout of 4\.0 is known"):
        contracting.before(FORTH, VersionName("4.0"))


@pytest.mark.parametrize("last", [receipt(V2, V3, strategy="undo"), receipt(V2, V3, outcome="refused")])
def test_an_undo_and_what_never_began_make_no_version_older(last):
    assert contracting.before([*FORTH, last], V2) == [V1]
    assert contracting.newer([*FORTH, last], V2, [V3, V1, VersionName("9")]) == {V3}


def test_a_contract_waits_until_nobody_it_harms_has_traffic():
    empty = drawn(
        b'{"version=1.0": {"weight": 1, "replicas": 1}, "version=2.0": {"weight": 99, "replicas": 1}}'
    )
    with pytest.raises(Conflict, match=r"1\.0 of ledger has traffic"):
        contracting.contract(empty, migration(), [V1])
    found = contracting.contract(empty, migration(), [])
    assert told(found.steps) == ["contract", "record"]


@pytest.mark.parametrize(
    ("phase", "contract", "phases", "after_s", "is_due"),
    [
        (Phase.DONE, "after 2h", PHASES, 7200, True),
        (Phase.DONE, "after 2h", PHASES, 7199, False),
        (Phase.DONE, "by-hand", PHASES, 1e9, False),
        (Phase.DONE, "after 1m", ("expand",), 1e9, False),
        (Phase.TAKEN_BACK, "after 1m", PHASES, 1e9, False),
        (Phase.RUNNING, "after 1m", PHASES, 1e9, False),
    ],
)
def test_a_contract_is_due_so_long_after_its_rollout_was_done(phase, contract, phases, after_s, is_due):
    settings = MigrationSettings(url_env="URL", contract=contract)
    own = msgspec.structs.replace(migration(*phases), settings=settings)
    found = plan("r", LEDGER, V2, BASE, RolloutSettings(), migrations={V2: own})
    state = State(plan=found, by="x", started=0, since=0, phase=phase, steps=[], wish=Wish(), ended=1000.0)
    assert contracting.due(state, 1000.0 + after_s) == (V2 if is_due else None)
    once = msgspec.structs.replace(state, plan=contracting.contract(found, own, []))
    assert contracting.due(once, 1e12) is None
