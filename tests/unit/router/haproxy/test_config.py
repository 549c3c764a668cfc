"""What of a front is in HAProxy's file, and so takes a reload."""

from __future__ import annotations

from milkrun.model import ServiceName
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import config
from milkrun.settings.service import EjectionSettings, TrafficSettings

GOAT = ServiceName("goat")


def lines(*traffics):
    services = {ServiceName(f"s{number}"): traffic for number, traffic in enumerate(traffics)}
    front = Front(
        name="edge",
        listen=("127.0.0.1", 1),
        stats=("127.0.0.1", 2),
        routes=tuple(Route(service=name, path=f"/{name}") for name in services),
        services=services,
    )
    return config.render(config.layout(front, (), dict.fromkeys(services, 1)), {}, {})


def test_a_router_waits_as_long_as_its_most_patient_service_and_each_backend_as_its_own():
    text = lines(
        TrafficSettings(),
        TrafficSettings(idle_limit_s=7200, reload_limit_s=3600),
        TrafficSettings(idle_limit_s=5),
    )

    head, _, backends = text.partition("backend s0.a\n")
    assert "hard-stop-after 3600000ms" in head
    assert "timeout client 7200000ms" in head
    for name, idle, tunnel in (("s0", 60, 3600), ("s1", 7200, 7200), ("s2", 5, 3600)):
        for backend in (f"{name}.a", f"{name}.all"):
            _, _, rest = f"backend s0.a\n{backends}".partition(f"backend {backend}\n")
            own = rest.partition("\nbackend ")[0]
            assert f"timeout server {idle}000ms" in own
            assert f"timeout tunnel {tunnel}000ms" in own


def test_without_a_service_the_usual_limits_hold():
    assert "hard-stop-after 600000ms" in lines()
    assert "timeout client 60000ms" in lines()


def laid_out(**traffic):
    front = Front(
        name="lb-goat",
        listen=("127.0.0.1", 1),
        stats=("127.0.0.1", 2),
        routes=(Route(service=GOAT),),
        services={GOAT: TrafficSettings(**traffic)},
    )
    return config.layout(front, (), {GOAT: 8}, config.form(front))


def test_who_is_put_aside_is_the_routers_own_business():
    assert laid_out(ejection=EjectionSettings(enabled=False)) == laid_out()
    assert laid_out(balance="two-choices") != laid_out()
