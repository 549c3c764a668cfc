from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from milkrun.settings.environment import Environment, RegistrySettings, RouterSettings
from milkrun.settings.service import ServiceSettings, StopSettings
from milkrun.up.parts import Kind, parts, routers_in_stop_order, stop_order


def environment(*services: str) -> Environment:
    routers = {
        f"lb-{name}": RouterSettings(service=name, listen="127.0.0.1:1", stats="127.0.0.1:2")
        for name in services
    }
    return Environment(name="x", registry=RegistrySettings(http="127.0.0.1:9500"), routers=routers)


def settings(*needs: str, drain_limit_s: float = 60.0) -> ServiceSettings:
    return ServiceSettings(
        command=["x"], needs=list(needs), stop=StopSettings(drain_limit_s=drain_limit_s, stop_limit_s=5.0)
    )


FARM = {"goat": settings(), "farmer": settings("goat"), "shop": settings("farmer")}


def test_the_registry_starts_first_and_the_router_that_others_need_before_theirs():
    names = [part.name for part in parts(environment("shop", "goat", "farmer"), FARM)]
    assert names == ["registry", "gitsync", "agent", "lb-goat", "lb-farmer", "lb-shop", "rollouts"]


def test_every_part_is_told_this_environments_registry():
    for part in parts(environment("goat"), FARM):
        assert "127.0.0.1:9500" in " ".join(part.arguments)


def test_the_registry_answers_dns_where_the_settings_say_and_else_nowhere():
    assert "--dns" not in parts(environment(), FARM)[0].arguments
    settings = RegistrySettings(http="127.0.0.1:9500", dns="127.0.0.1:9600", srv_weight_scale=256)
    registry = parts(Environment(name="x", registry=settings), FARM)[0]
    assert registry.arguments == [
        *("registry", "--http", "127.0.0.1:9500", "--acl", "default"),
        *("--dns", "127.0.0.1:9600", "--srv-weight-scale", "256"),
    ]


def test_the_registrys_checks_reach_what_the_settings_permit():
    settings = RegistrySettings(check_allow=["10.1.0.0/16", "fd00::/32"])
    registry = parts(Environment(name="x", registry=settings), FARM)[0]
    assert registry.arguments[-2:] == ["--check-allow=10.1.0.0/16", "--check-allow=fd00::/32"]


def test_the_registry_speaks_tls_and_answers_to_names_as_the_settings_say():
    tls = {"tls_cert": "tls/a.pem", "tls_key": "/etc/a.key", "tls_ca": "ca.pem"}
    settings = RegistrySettings(http="127.0.0.1:9500", **tls, allow_host=["farm.example"])
    registry, *others = parts(Environment(name="x", registry=settings), FARM, "/farm")
    assert registry.arguments[5:] == [
        "--tls-cert=/farm/tls/a.pem",
        "--tls-key=/etc/a.key",
        "--tls-ca=/farm/ca.pem",
        "--allow-host=farm.example",
    ]
    assert all("https://127.0.0.1:9500" in other.arguments for other in others)


def test_they_stop_in_the_opposite_order_routers_first():
    groups = stop_order(parts(environment("shop", "goat", "farmer"), FARM))
    assert [part.name for group in groups for part in group] == [
        "rollouts",
        "lb-shop",
        "lb-farmer",
        "lb-goat",
        "agent",
        "gitsync",
        "registry",
    ]


def test_the_agent_may_take_as_long_as_its_slowest_service():
    slow = {"goat": settings(drain_limit_s=600.0), "farmer": settings("goat")}
    [agent] = [part for part in parts(environment("goat"), slow) if part.kind is Kind.AGENT]
    assert agent.stop_s > 605.0


NAMES = list("abcdef")
ROUTED = st.lists(st.sampled_from(NAMES), unique=True)


@example({"a": ["b", "c"], "b": ["a"]}, ["a", "b", "c"])
@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), unique=True)), ROUTED)
def test_every_router_stops_once_and_callers_before_the_called_unless_in_a_circle(needs, routed):
    services = {name: settings(*needed) for name, needed in needs.items()}
    order = routers_in_stop_order(environment(*routed), services)
    assert sorted(order) == sorted(f"lb-{name}" for name in routed)

    def reaches(start: str, goal: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(
            need == goal or (need not in seen and reaches(need, goal, seen | {need}))
            for need in needs.get(start, [])
        )

    for caller in routed:
        for called in routed:
            if caller != called and reaches(caller, called) and not reaches(called, caller):
                assert order.index(f"lb-{caller}") < order.index(f"lb-{called}")
