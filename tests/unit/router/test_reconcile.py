"""One service's loop over the fake data plane: verified by read-back, resumed anywhere, never ahead of the truth."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from milkrun.errors import DataPlaneError
from milkrun.model import (
    CommitId,
    CommitMark,
    Figures,
    Health,
    Instance,
    InstanceId,
    ServiceName,
    VersionName,
    VersionWish,
    Wish,
)
from milkrun.router.desired import Known, Mode
from milkrun.router.diff import Add, Remove, SetShares
from milkrun.router.plane import Counted, InstanceCounted
from milkrun.router.reconcile import Facts, Reconciler
from milkrun.testing.plane import FakeDataPlane

GOAT = ServiceName("goat")
V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")


def instance(name, version=V1, health=Health.PASSING):
    port = 8000 + ord(name)
    return Instance(
        id=InstanceId(name), service=GOAT, version=version, address="127.0.0.1", port=port, health=health
    )


def wish(generation, **weights):
    versions = {"v1": V1, "v2": V2}
    return Wish(
        versions={versions[name]: VersionWish(weight=weight) for name, weight in weights.items()},
        mark=CommitMark(commit=CommitId(f"{generation:040x}"), generation=generation),
    )


def facts(*instances, index=1, wished=None):
    return Facts(instances=list(instances), wish=wished or Wish(), index=index)


@pytest.fixture
async def plane():
    found = FakeDataPlane()
    await found.start(Known().state)
    return found


@pytest.fixture
def reconciler(plane, tmp_path):
    return Reconciler(GOAT, plane, tmp_path)


async def test_what_is_asked_for_is_served_and_the_same_again_changes_nothing(plane, reconciler):
    served = await reconciler.reconcile(facts(instance("a"), instance("b", V2), wished=wish(1, v1=9, v2=1)))

    assert served.observed.shares == {V1: 9000, V2: 1000}
    assert (served.drift, served.busy, served.index) == ([], False, 1)
    told = len(plane.told)
    again = await reconciler.reconcile(facts(instance("a"), instance("b", V2), wished=wish(1, v1=9, v2=1)))
    assert len(plane.told) == told
    assert again.applied_at == served.applied_at


class SlowPlane(FakeDataPlane):
    """Says `asked` when it is looked at, and answers when it `may`."""

    def __init__(self):
        super().__init__()
        self.asked, self.may = asyncio.Event(), asyncio.Event()
        self.may.set()

    async def observe(self):
        self.asked.set()
        await self.may.wait()
        return await super().observe()


@pytest.fixture
async def slow(tmp_path):
    """A slow plane that serves `a`, and its reconciler; from now on a look ends when the plane `may`."""
    plane = SlowPlane()
    await plane.start(Known().state)
    reconciler = Reconciler(GOAT, plane, tmp_path)
    await reconciler.reconcile(facts(instance("a")))
    plane.may.clear()
    plane.asked.clear()
    return plane, reconciler


async def test_a_look_at_what_is_as_it_was_is_given_up_for_news_and_the_news_does_not_wait_for_one(slow):
    plane, reconciler = slow
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        look = tasks.create_task(reconciler.reconcile(facts(instance("a"))))
        await plane.asked.wait()
        reconciler.hurry()
        reconciler.hurry()
        assert await look is None

        told = len(plane.told)
        plane.asked.clear()
        news = tasks.create_task(reconciler.reconcile(facts(instance("a"), instance("b"))))
        await plane.asked.wait()
        assert [type(operation) for operation in plane.told[told:]] == [Add]
        reconciler.hurry()  # whether it was obeyed is looked at all the same
        plane.may.set()
        assert set((await news).observed.versions[V1]) == {"a", "b"}


async def test_whether_news_was_obeyed_is_looked_at_to_the_end(slow):
    plane, reconciler = slow
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        news = tasks.create_task(reconciler.reconcile(facts(instance("a"), instance("b"))))
        await plane.asked.wait()
        reconciler.hurry()
        plane.may.set()
        assert set((await news).observed.versions[V1]) == {"a", "b"}


async def test_no_look_is_given_up_twice(slow):
    plane, reconciler = slow
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for ended in (True, False):
            plane.asked.clear()
            look = tasks.create_task(reconciler.reconcile(facts(instance("a"))))
            await plane.asked.wait()
            reconciler.hurry()
            if not ended:
                plane.may.set()
            assert (await look is None) == ended


async def test_a_data_plane_that_says_yes_and_does_nothing_is_seen(plane, reconciler):
    await reconciler.reconcile(facts(instance("a")))
    plane.deaf = True

    served = await reconciler.reconcile(
        facts(instance("a", health=Health.MAINTENANCE), instance("b"), index=2)
    )

    assert served.drift == ["b of 0.0.1 is not there", "a of 0.0.1 should drain"]
    assert served.busy
    assert served.index == 1, "the reported index is of what is really served"
    assert served.instances(0)["a"].state == "serving"
    plane.deaf = False
    served = await reconciler.reconcile(
        facts(instance("a", health=Health.MAINTENANCE), instance("b"), index=3)
    )
    assert (served.drift, served.index) == ([], 3)
    assert served.instances(0)["a"].state == "drained"


async def test_a_deaf_data_plane_is_asked_a_bounded_number_of_times(plane, reconciler):
    plane.deaf = True

    await reconciler.reconcile(facts(instance("a")))

    assert 1 <= sum(isinstance(operation, SetShares) for operation in plane.told) <= 2


async def test_nothing_is_claimed_before_anything_was_ever_served(plane, reconciler):
    plane.deaf = True

    served = await reconciler.reconcile(facts(instance("a"), index=7))

    assert served.index == 0


async def test_the_decision_is_on_disk_before_the_data_plane_is_told(plane, reconciler, tmp_path):
    class Dies(FakeDataPlane):
        async def apply(self, operations, wanted):
            raise DataPlaneError("killed just now")

    dying = Dies()
    await dying.start(Known().state)
    interrupted = Reconciler(GOAT, dying, tmp_path)
    with pytest.raises(DataPlaneError):
        await interrupted.reconcile(facts(instance("a"), instance("b", V2), wished=wish(9, v1=1)))

    resumed = Reconciler(GOAT, plane, tmp_path)
    served = await resumed.reconcile(facts(instance("a"), instance("b", V2), wished=wish(8, v2=1)))

    assert served.observed.shares == {V1: 10_000}
    assert "older than 9" in served.decision.held[0]


async def test_older_is_followed_when_it_is_meant(plane, reconciler, tmp_path):
    await reconciler.reconcile(facts(instance("a"), instance("b", V2), wished=wish(9, v1=1)))

    meant = Reconciler(GOAT, plane, tmp_path, accept_older=True)
    served = await meant.reconcile(facts(instance("a"), instance("b", V2), wished=wish(8, v2=1)))

    assert served.observed.shares == {V2: 10_000}
    assert (served.decision.held, served.decision.known.generation) == ([], 8)


async def test_another_services_past_is_not_this_ones(plane, reconciler, tmp_path):
    await reconciler.reconcile(facts(instance("a"), wished=wish(9, v1=1)))

    assert Reconciler(ServiceName("cow"), plane, tmp_path).known == Known()


async def test_a_server_that_cannot_be_connected_to_may_vanish(plane, reconciler):
    await reconciler.reconcile(facts(instance("a"), instance("b")))
    held = await reconciler.reconcile(facts())
    assert held.decision.alarms
    plane.down = {InstanceId("a"), InstanceId("b")}

    served = await reconciler.reconcile(facts(instance("c")))

    assert served.decision.alarms == []
    assert set(served.decision.state.serving()) == {"c"}


async def test_who_leaves_with_requests_is_waited_for(plane, reconciler):
    await reconciler.reconcile(facts(instance("a"), instance("b"), instance("c")))
    plane.busy = {InstanceId("c"): 2}

    served = await reconciler.reconcile(facts(instance("a"), instance("b"), index=2))

    assert (served.busy, served.index) == (True, 2)
    assert (served.instances(0)["c"].state, served.instances(0)["c"].in_flight) == ("draining", 2)
    plane.busy = {}
    served = await reconciler.reconcile(facts(instance("a"), instance("b"), index=2))
    assert not served.busy
    assert "c" not in served.instances(0)


async def test_nobody_is_drained_while_a_former_worker_lives(plane, reconciler):
    served = await reconciler.reconcile(facts(instance("a"), instance("b", health=Health.MAINTENANCE)))

    assert served.instances(0)["b"].state == "drained"
    assert served.instances(1)["b"].state == "draining"


async def test_who_takes_what_others_cannot_serve_is_serving_whatever_its_lane_says(reconciler):
    served = await reconciler.reconcile(facts(instance("a"), instance("b", health=Health.MAINTENANCE)))
    seen = served.observed.versions[V1]
    pooled = {**seen, InstanceId("b"): replace(seen[InstanceId("b")], pooled=True)}
    observed = replace(served.observed, versions={V1: pooled})

    assert replace(served, observed=observed).instances(0)["b"].state == "serving"


async def test_an_instance_that_is_in_two_versions_serves_if_it_does_in_one(reconciler):
    served = await reconciler.reconcile(facts(instance("a"), instance("b", V2, Health.MAINTENANCE)))
    twice = {**served.observed.versions, V2: {InstanceId("a"): replace_mode(served, Mode.DRAIN)}}

    both = replace(served, observed=replace(served.observed, versions=twice))

    assert both.instances(0)["a"].state == "serving"


def replace_mode(served, mode):
    seen = served.observed.versions[V1][InstanceId("a")]
    return replace(seen, server=replace(seen.server, mode=mode))


async def test_a_damaged_file_is_passed_over(plane, tmp_path, reconciler):
    await reconciler.reconcile(facts(instance("a"), wished=wish(9, v1=1)))
    (tmp_path / "goat.known.json").write_bytes(b'{"state": \xff')

    assert Reconciler(GOAT, plane, tmp_path).known == Known()


async def test_a_disk_that_refuses_is_an_error_of_ours_and_nothing_is_told(plane, reconciler, tmp_path):
    (tmp_path / "goat.known.json").mkdir()

    with pytest.raises(DataPlaneError, match="cannot be written") as caught:
        await reconciler.reconcile(facts(instance("a")))

    assert caught.value.remedy
    assert plane.told == []


async def test_figures_count_from_the_routers_start(plane, tmp_path):
    """HAProxy may have been there for years: its history is no traffic of these shares."""

    await plane.start(Known().state)
    reconciler = Reconciler(GOAT, plane, tmp_path)
    plane.counted = [Counted(process=1, place="goat.a", version=V1, figures=Figures(requests=1_000_000))]
    await reconciler.reconcile(facts(instance("a"), wished=wish(1, v1=1)))
    await reconciler.count()
    plane.counted = [Counted(process=1, place="goat.a", version=V1, figures=Figures(requests=1_000_005))]
    await reconciler.count()

    assert reconciler.traffic()[V1].window.requests == 5
    assert reconciler.traffic()[V1].total.requests == 5


async def test_what_leaves_is_counted_before_it_is_gone(plane, reconciler):
    counted = []
    await reconciler.reconcile(facts(instance("a"), instance("b", V2), wished=wish(1, v1=1, v2=1)))
    await reconciler.count()
    apply = plane.apply

    async def watched(operations, wanted):
        if any(isinstance(one, Remove) for one in operations):
            counted.append(reconciler.traffic()[V2].total.requests)
        await apply(operations, wanted)

    plane.apply = watched
    plane.counted = [Counted(process=1, place="goat.b", version=V2, figures=Figures(requests=7))]
    await reconciler.reconcile(facts(instance("a"), wished=wish(2, v1=1)))

    assert counted == [7]


async def test_what_is_kept_on_disk_is_all_of_it(reconciler, tmp_path):
    await reconciler.reconcile(facts(instance("a"), wished=wish(3, v1=1)))
    kept = msgspec.json.decode((tmp_path / "goat.known.json").read_bytes(), type=Known)

    assert kept == reconciler.known


def test_what_is_still_to_do_is_said_in_words():
    from milkrun.router.desired import Server
    from milkrun.router.diff import Change, Remove, said

    a = Server(id=InstanceId("a"), address="127.0.0.1", port=1)
    assert [
        said(operation)
        for operation in (
            Add(V1, a),
            Change(V1, a),
            Change(V1, replace(a, mode=Mode.DRAIN)),
            Remove(V1, a.id),
            SetShares({V1: 9_990, V2: 10}),
            SetShares({}),
        )
    ] == [
        "a of 0.0.1 is not there",
        "a of 0.0.1 should take requests",
        "a of 0.0.1 should drain",
        "a of 0.0.1 should be gone",
        "the shares should be 0.0.1 99.90 %, 0.0.2 0.10 %",
        "the shares should be none",
    ]


async def test_news_is_acted_on_before_the_data_plane_is_read_again(plane, reconciler):
    await reconciler.reconcile(facts(instance("a"), instance("b", V2), wished=wish(1, v1=90, v2=10)))
    order = Order(plane)

    served = await reconciler.reconcile(facts(instance("a"), instance("b", V2), wished=wish(2, v1=50, v2=50)))

    assert order.calls[:2] == ["apply", "observe"]
    assert served.observed.shares == {V1: 5000, V2: 5000}
    assert served.drift == []


async def test_what_was_half_done_is_read_before_anything_is_done(plane, reconciler):
    await reconciler.reconcile(facts(instance("a"), wished=wish(1, v1=1)))
    plane.broken = True
    with pytest.raises(DataPlaneError):
        await reconciler.reconcile(facts(instance("a"), instance("b"), wished=wish(2, v1=1)))
    plane.broken = False
    order = Order(plane)

    await reconciler.reconcile(facts(instance("a"), instance("b"), instance("c"), wished=wish(3, v1=1)))

    assert order.calls[0] == "observe"


async def test_the_same_facts_again_are_only_compared(plane, reconciler):
    same = facts(instance("a"), wished=wish(1, v1=1))
    await reconciler.reconcile(same)
    order = Order(plane)

    await reconciler.reconcile(same)

    assert order.calls[0] == "observe"


class Order:
    """Which of the plane's calls came in which order."""

    def __init__(self, plane: FakeDataPlane) -> None:
        self.calls: list[str] = []
        for name in ("observe", "apply"):
            setattr(plane, name, self._noted(name, getattr(plane, name)))

    def _noted(self, name, call):
        async def noted(*given):
            self.calls.append(name)
            return await call(*given)

        return noted


def counted(**requests):
    """What a reading says: each instance's requests, of which b's all failed."""
    instances = {
        InstanceId(name): InstanceCounted(tried=count, requests=count, failures=count * (name == "b"))
        for name, count in requests.items()
    }
    return [Counted(process=1, place="goat.a", version=V1, instances=instances)]


async def test_who_fails_while_its_check_is_good_is_put_aside_and_comes_back(plane, tmp_path):
    now = 1000.0
    reconciler = Reconciler(GOAT, plane, tmp_path, clock=lambda: now)
    all_three = facts(instance("a"), instance("b"), instance("c"))
    await reconciler.reconcile(all_three)
    plane.counted = counted(a=0, b=0, c=0)
    await reconciler.count()
    plane.counted = counted(a=20, b=20, c=20)
    await reconciler.count()
    assert reconciler.restless

    served = await reconciler.reconcile(all_three)

    assert [seen.server.mode for seen in served.observed.versions[V1].values()] == [
        Mode.SERVE,
        Mode.DRAIN,
        Mode.SERVE,
    ]
    assert reconciler.aside == [
        "b of 0.0.1 is put aside for 5 s: 20 of its 20 requests failed, of the others' 0 of 40"
    ]
    assert (served.drift, reconciler.restless) == ([], False)
    assert reconciler.known.state.serving().keys() == {"a", "b", "c"}, "the registry's word is not touched"

    now += 6
    served = await reconciler.reconcile(all_three)
    assert {seen.server.mode for seen in served.observed.versions[V1].values()} == {Mode.SERVE}
    assert reconciler.aside == []


async def test_one_that_is_aside_serves_again_when_another_one_goes(plane, tmp_path):
    reconciler = Reconciler(GOAT, plane, tmp_path, clock=lambda: 1000.0)
    await reconciler.reconcile(facts(instance("a"), instance("b"), instance("c")))
    for requests in (0, 20):
        plane.counted = counted(a=requests, b=requests, c=requests)
        await reconciler.count()
    await reconciler.reconcile(facts(instance("a"), instance("b"), instance("c")))
    assert reconciler.aside

    served = await reconciler.reconcile(
        facts(instance("a", health=Health.CRITICAL), instance("b"), instance("c"), index=2)
    )

    assert reconciler.aside == []
    assert served.observed.versions[V1][InstanceId("b")].server.mode is Mode.SERVE
