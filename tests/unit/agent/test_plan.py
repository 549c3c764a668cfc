import random

from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.agent.plan import Claim, Hold, Holder, Own, Release, Slot, Stop, View, plan
from milkrun.model import CommitMark, VersionWish, Wish
from milkrun.settings.service import ServiceSettings

MARK = CommitMark(commit="c0ffee", generation=1)
GOAT = ServiceSettings(command=["goat"])


def wish(*, mark=MARK, **replicas):
    return Wish(
        versions={name: VersionWish(weight=1, replicas=number) for name, number in replicas.items()},
        mark=mark,
    )


def view(**changes):
    fields = {
        "host": "meadow", "session": "s1", "services": {"goat": GOAT}, "wishes": {"goat": wish(v1=2)},
        "slots": {}, "own": {},
    } | changes  # fmt: skip
    return View(**fields)


def slot(number, service="goat", version="v1"):
    return Slot(service, version, number)


MINE = Holder(session="s1", host="meadow", instance="goat-v1-meadow-8101")
THEIRS = Holder(session="s2", host="barn", instance="goat-v1-barn-8101")
UNIT = Own(instance="goat-v1-meadow-8101")


def test_free_slots_are_claimed_and_held_ones_are_not():
    assert plan(view()) == [Claim(slot(0)), Claim(slot(1))]
    assert plan(view(slots={slot(0): THEIRS})) == [Claim(slot(1))]


def test_a_slot_that_is_ours_without_a_unit_is_claimed_again():
    assert Claim(slot(0)) in plan(view(slots={slot(0): MINE}))


def test_nothing_is_claimed_without_a_session_or_before_the_slots_are_known():
    assert plan(view(session="")) == []
    assert plan(view(slots=None)) == []


def test_only_within_the_pool_of_hosts():
    assert plan(view(services={"goat": ServiceSettings(command=["goat"], hosts=["barn"])})) == []
    assert plan(view(services={"goat": ServiceSettings(command=["goat"], hosts=["barn", "meadow"])})) != []


def test_a_version_without_replicas_runs_nothing():
    assert plan(view(wishes={"goat": Wish(versions={"v1": VersionWish(weight=1)}, mark=MARK)})) == []


def test_what_git_no_longer_asks_for_stops_and_its_slot_is_given_back():
    own, slots = {slot(1): UNIT}, {slot(1): MINE, slot(0): THEIRS}
    assert plan(view(wishes={"goat": wish(v1=1)}, own=own, slots=slots)) == [
        Stop(slot(1), "git asks for 1 of goat v1")
    ]
    assert plan(view(wishes={"goat": wish(v2=0)}, own=own, slots=slots)) == [
        Stop(slot(1), "git asks for 0 of goat v1")
    ]
    assert plan(view(wishes={"goat": wish(v1=1)}, slots=slots)) == [Release(slot(1))]


def test_empty_is_not_truth():
    """Keys that vanish without the commit mark beside them, and answers that never came, stop nothing."""
    own, slots = {slot(0): UNIT}, {slot(0): MINE}
    for wishes in ({}, {"goat": Wish()}, {"goat": wish(mark=None, v2=1)}):
        decisions = plan(view(wishes=wishes, own=own, slots=slots))
        assert not any(isinstance(decision, Stop | Release) for decision in decisions), wishes
    assert plan(view(wishes={}, services={}, slots={}, own=own)) == [Hold(slot(0), UNIT.instance)]


def test_a_slot_that_another_holds_is_not_ours():
    decisions = plan(view(own={slot(0): UNIT}, slots={slot(0): THEIRS, slot(1): THEIRS}))
    assert decisions == [Stop(slot(0), "its slot is held by goat-v1-barn-8101 on barn")]


def test_our_own_older_session_is_waited_for():
    older = Holder(session="s0", host="meadow", instance=UNIT.instance)
    assert plan(view(own={slot(0): UNIT}, slots={slot(0): older, slot(1): THEIRS})) == []


def test_a_draining_unit_keeps_its_slot_from_being_claimed_here():
    own = {slot(0): Own(instance=UNIT.instance, draining=True)}
    assert plan(view(own=own, slots={slot(0): MINE, slot(1): THEIRS})) == []
    assert plan(view(own=own, slots={slot(1): THEIRS})) == []
    assert plan(view(own=own, slots={slot(0): MINE}, wishes={"goat": wish(v1=0)})) == []


def test_what_is_needed_starts_first():
    services = {"farmer": ServiceSettings(command=["farmer"], needs=["goat"]), "goat": GOAT}
    wishes = {"farmer": wish(v1=1), "goat": wish(v1=1)}
    assert plan(view(services=services, wishes=wishes)) == [Claim(slot(0)), Claim(slot(0, service="farmer"))]


def test_a_huge_number_is_not_counted_to():
    assert len(plan(view(wishes={"goat": wish(v1=10**12)}))) == 10_000


# Several hosts and one registry: whatever happens in between, they agree in the end


class Meadow:
    """The registry's slots, and hosts that see them, each perhaps blind or without a session."""

    def __init__(self, hosts):
        self.wish = wish(v1=0)
        self.slots = {}
        self.own = {host: {} for host in hosts}
        self.session = {host: f"{host}-0" for host in hosts}
        self.blind = dict.fromkeys(hosts, False)

    def lose_session(self, host):
        old, number = self.session[host], int(self.session[host].split("-")[1])
        self.slots = {key: holder for key, holder in self.slots.items() if holder.session != old}
        self.session[host] = f"{host}-{number + 1}"

    def turn(self, host):
        own = self.own[host]
        seen = View(
            host=host, session=self.session[host], services={} if self.blind[host] else {"goat": GOAT},
            wishes={"goat": Wish() if self.blind[host] else self.wish}, slots=dict(self.slots), own=dict(own),
        )  # fmt: skip
        for decision in plan(seen):
            match decision:
                case Claim(key) | Hold(key, _):
                    assert isinstance(decision, Hold) or key not in own
                    mine = Holder(session=self.session[host], host=host, instance=f"goat-{host}-{key.number}")
                    if self.slots.get(key, mine).session == self.session[host]:
                        self.slots[key] = mine
                        own[key] = own.get(key, Own(instance=mine.instance))
                case Stop(key, _):
                    self.check_stop(host, key)
                    own[key] = Own(instance=own[key].instance, draining=True)
                case Release(key):
                    assert key not in own
                    self.slots.pop(key)

    def check_stop(self, host, key):
        other = self.slots.get(key)
        asked = self.wish.versions["v1"].replicas
        taken = other is not None and other.session != self.session[host]
        assert taken or (key.number >= asked and not self.blind[host])

    def end_drains(self, host):
        for key, unit in list(self.own[host].items()):
            if unit.draining:
                del self.own[host][key]
                if key in self.slots and self.slots[key].session == self.session[host]:
                    del self.slots[key]


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(0, 40))
def test_hosts_agree_and_never_run_a_slot_twice(chance: random.Random, count, turns):
    hosts = [f"host{number}" for number in range(count)]
    meadow = Meadow(hosts)
    for _ in range(turns):
        host = chance.choice(hosts)
        match chance.randrange(6):
            case 0:
                meadow.wish = wish(v1=chance.randrange(5))
            case 1:
                meadow.lose_session(host)
            case 2:
                meadow.blind[host] = not meadow.blind[host]
            case 3:
                meadow.end_drains(host)
            case _:
                meadow.turn(host)
    meadow.blind = dict.fromkeys(hosts, False)
    for _ in range(4):
        for host in hosts:
            meadow.turn(host)
            meadow.end_drains(host)
    running = [key.number for host in hosts for key in meadow.own[host]]
    assert sorted(running) == list(range(meadow.wish.versions["v1"].replicas))
    assert all(plan(View(
        host=host, session=meadow.session[host], services={"goat": GOAT}, wishes={"goat": meadow.wish},
        slots=meadow.slots, own=meadow.own[host],
    )) == [] for host in hosts)  # fmt: skip
