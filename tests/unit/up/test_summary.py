from __future__ import annotations

from pathlib import Path

import pytest

from milkrun.model import VersionWish, Wish
from milkrun.settings.environment import Environment, RouterSettings, RouteSettings
from milkrun.settings.folder import Folder
from milkrun.settings.service import ServiceSettings
from milkrun.up.run import command_from
from milkrun.up.summary import front_door, summary

ENVIRONMENT = Environment(
    name="dairy-farm",
    routers={
        "lb-goat": RouterSettings(service="goat", listen="127.0.0.1:8202", stats="127.0.0.1:8404"),
        "lb-farmer": RouterSettings(service="farmer", listen="127.0.0.1:8212", stats="127.0.0.1:8414"),
    },
)
SERVICES = {
    "goat": ServiceSettings(command=["x"], example="/milk"),
    "farmer": ServiceSettings(command=["x"], needs=["goat"], example="/milk"),
}


def wish(first: float, second: float) -> Wish:
    return Wish(versions={"0.0.1": VersionWish(weight=first), "0.0.2": VersionWish(weight=second)})


def test_the_farm_says_what_to_try_and_where_to_look():
    wishes = {"goat": wish(80, 20), "farmer": wish(50, 50)}
    assert summary(ENVIRONMENT, SERVICES, wishes, command="milkrun") == [
        "dairy-farm is up. Try:",
        "  curl localhost:8212/milk                                # one request to farmer",
        "  milkrun status                                          # all of it in one view",
        "  milkrun weights goat 0.0.1=50 0.0.2=50                  # change the shares with a commit",
        "  milkrun weights goat 0.0.1=80 0.0.2=20                  # and back",
        "  milkrun weights goat                                    # what is wanted and what is observed",
        "  milkrun load http://localhost:8202/milk --duration 10m  # elsewhere: requests, to judge new versions by",
        "  milkrun deploy goat 0.0.3                               # a new version takes over, or is taken back",
        "Look at:",
        "  registry   http://127.0.0.1:8500/v1/catalog/services",
        "  lb-farmer  http://127.0.0.1:8414/monitor",
        "  lb-goat    http://127.0.0.1:8404/monitor",
    ]


@pytest.mark.parametrize(
    ("versions", "following"),
    [
        (["0.0.9", "0.0.10"], "0.0.11"),
        (["7"], "8"),
        (["1.0", "0.9.9"], "1.1"),
        (["1.0", "blue"], None),
        (["0.0.1-rc1"], None),
    ],
)
def test_a_deploy_is_offered_of_the_version_after_the_highest_if_versions_are_numbers(versions, following):
    wishes = {"goat": Wish(versions={name: VersionWish(weight=1) for name in versions})}

    lines = summary(ENVIRONMENT, SERVICES, wishes, command="milkrun")

    deploys = [line.split()[3] for line in lines if " deploy " in line]
    assert deploys == ([following] if following else [])


def test_a_service_that_nobody_can_reach_is_not_offered_to_be_deployed():
    lines = summary(Environment(name="x"), SERVICES, {"goat": wish(1, 1)}, command="milkrun")

    assert [line for line in lines if "deploy" in line or "load" in line] == []


def test_a_front_door_by_tls_is_tried_by_tls():
    door = RouterSettings(service="goat", listen="0.0.0.0:443", stats="127.0.0.1:8404", certificates="tls")

    lines = summary(Environment(name="x", routers={"lb": door}), SERVICES, {}, command="milkrun")

    assert lines[1].split("#")[0].strip() == "curl --insecure https://localhost:443/milk"


@pytest.mark.parametrize(
    ("routes", "path"),
    [
        ([RouteSettings(service="farmer", host="a.example"), RouteSettings(service="goat")], "/milk"),
        ([RouteSettings(service="goat", path="/g", strip=True)], "/g/milk"),
        ([RouteSettings(service="goat", path="/milk")], "/milk"),
        ([RouteSettings(service="goat", path="/mil")], "/mil"),
    ],
)
def test_an_edge_is_tried_by_a_request_that_a_route_takes(routes, path):
    edge = RouterSettings(routes=routes, listen="127.0.0.1:80", stats="127.0.0.1:81")

    lines = summary(Environment(name="x", routers={"edge": edge}), SERVICES, {}, command="milkrun")

    assert lines[1].split("#")[0].strip() == f"curl localhost:80{path}"


def test_an_environment_without_routers_or_versions_still_has_something_to_say():
    lines = summary(Environment(name="x"), {}, {}, command="milkrun")
    assert lines[1].split() == ["milkrun", "status", "#", "all", "of", "it", "in", "one", "view"]


def test_the_front_door_is_the_one_that_nobody_inside_needs():
    assert front_door(ENVIRONMENT, SERVICES) == "lb-farmer"
    circle = {**SERVICES, "goat": ServiceSettings(command=["x"], needs=["farmer"])}
    assert front_door(ENVIRONMENT, circle) == "lb-farmer"
    assert front_door(Environment(name="x"), {}) == ""


def test_the_command_works_from_where_the_person_is():
    farm = Folder(Path("/home/me/farm"))
    assert command_from("milkrun", farm, Path("/home/me/farm")) == "milkrun"
    assert command_from("milkrun", farm, Path("/home/me/farm/deploy")) == "milkrun"
    assert command_from("milkrun", farm, Path("/home/me")) == "milkrun --env farm"
    assert command_from("milkrun", farm, Path("/tmp")) == "milkrun --env /home/me/farm"
    spaced = Folder(Path("/home/me/my farm"))
    assert command_from("milkrun", spaced, Path("/home/me")) == "milkrun --env 'my farm'"
