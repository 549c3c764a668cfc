"""What changed files would do at the routers, before anybody commits them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from milkrun.model import VersionWish, Wish
from milkrun.router.plan import Files, steps
from milkrun.settings.environment import Environment, RouterSettings, RouteSettings
from milkrun.settings.service import EjectionSettings, ServiceSettings, TrafficSettings

GOAT = ServiceSettings(command=["goat"])
BALANCER = RouterSettings(service="goat", listen="127.0.0.1:1", stats="127.0.0.1:2")


def files(routers=None, services=None, **weights) -> Files:
    wish = Wish(versions={name: VersionWish(weight=weight, replicas=1) for name, weight in weights.items()})
    return Files(
        environment=Environment(name="farm", routers=routers or {"lb": BALANCER}),
        services=services or {"goat": GOAT},
        wishes={"goat": wish},
    )


def told(before: Files, after: Files) -> list[tuple[str, str]]:
    return [(step.how, step.what) for step in steps(before, after)]


def test_nothing_changes_nothing():
    assert told(files(a=1), files(a=1)) == []


def test_weights_change_at_once():
    assert told(files(a=80, b=20), files(a=50, b=50)) == [
        ("at once", "goat a: 80.00 % becomes 50.00 %"),
        ("at once", "goat b: 20.00 % becomes 50.00 %"),
    ]


def test_weights_in_the_same_proportion_change_nothing():
    assert told(files(a=80, b=20), files(a=8, b=2)) == []


def test_a_new_version_and_maintenance_are_told():
    after = files(a=1, b=0)
    after = replace(after, wishes={"goat": replace(after.wishes["goat"], maintenance=True)})
    assert told(files(a=1), after) == [
        ("at once", "goat is in maintenance"),
        ("at once", "goat b: 0 replicas become 1"),
    ]


@pytest.mark.parametrize(
    ("router", "what"),
    [
        (replace(BALANCER, listen="[::1]:1"), "listen 127.0.0.1:1 becomes [::1]:1"),
        (replace(BALANCER, stats="127.0.0.1:3"), "stats 127.0.0.1:2 becomes 127.0.0.1:3"),
    ],
)
def test_an_address_takes_a_reload(router, what):
    assert told(files(), files({"lb": router})) == [("reload", what)]


def test_another_treatment_of_the_service_takes_a_reload():
    other = replace(GOAT, traffic=TrafficSettings(balance="least-connections"))
    assert told(files(), files(services={"goat": other})) == [
        ("reload", "goat is treated in another way ([traffic] of its file)")
    ]


def test_other_limits_of_who_is_put_aside_take_none():
    other = replace(GOAT, traffic=TrafficSettings(ejection=EjectionSettings(silent_s=30)))
    assert told(files(), files(services={"goat": other})) == [
        ("at once", "who fails at goat is put aside by other limits ([traffic.ejection] of its file)")
    ]


def test_routes_that_come_go_and_change_places_are_told():
    def edge(*routes: RouteSettings) -> Files:
        return files({"edge": RouterSettings(listen="127.0.0.1:1", stats="127.0.0.1:2", routes=list(routes))})

    shop = RouteSettings(service="goat", path="/shop", methods=["GET"])
    api = RouteSettings(service="goat", host="api.example.org", headers={"X-Beta": "1"})
    rest = RouteSettings(service="goat", path="/rest")
    assert told(edge(shop, rest), edge(rest, api)) == [
        ("reload", "a route: api.example.org/, x-beta: 1 to goat"),
        ("reload", "no longer: GET, /shop to goat"),
    ]
    assert told(edge(shop, rest), edge(rest, shop)) == [("reload", "the routes have another order")]


def test_routers_start_and_stop():
    assert told(files(), files({"other": BALANCER})) == [
        ("stop", "the router is dropped"),
        ("start", "the router is new"),
    ]


def test_another_data_plane_is_no_reload():
    assert told(files(), files({"lb": replace(BALANCER, data_plane="envoy")})) == [
        ("restart", "haproxy ends its requests, then envoy starts: not hitless")
    ]
