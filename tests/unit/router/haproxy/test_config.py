"""What of a front is in HAProxy's file, and so takes a reload."""

from __future__ import annotations

from milkrun.model import ServiceName
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import config
from milkrun.settings.service import EjectionSettings, TrafficSettings

GOAT = ServiceName("goat")


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
