"""Nobody but this host's own programs asks without a certificate, whatever the operator writes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused, NotFound
from milkrun.model import ServiceName
from milkrun.router.envoy import outside
from milkrun.router.envoy.strangers import asked, front_for
from milkrun.router.front import Front, Route
from milkrun.settings.service import TrafficSettings

GOAT, COW = ServiceName("goat"), ServiceName("cow")
FRONT = Front(
    name="side",
    listen=("127.0.0.1", 8000),
    stats=("127.0.0.1", 8404),
    routes=(Route(service=COW, path="/cow"), Route(service=GOAT, path="/goat")),
    services={
        GOAT: TrafficSettings(override="cookie", sticky="cookie:who"),
        COW: TrafficSettings(sticky="header:x"),
    },
    local=True,
)
places = st.ip_addresses().map(str) | st.sampled_from(["localhost", "0.0.0.0", "::", "127.1", "goat", ""])


@given(places, st.integers(-1, 70_000))
def test_in_clear_only_loopback(host, port):
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = outside.outside(text)
    except InputRefused:
        return
    assert ipaddress.ip_address(found.listen[0]).is_loopback
    assert not found.tls


@given(st.lists(st.sampled_from(["", "file"]), min_size=3, max_size=3))
def test_certificates_are_all_there_or_none_is(files):
    try:
        found = outside.outside("10.0.0.7:18000", *files)
    except InputRefused:
        assert not all(files)
        return
    assert found.tls
    assert all((found.certificate, found.key, found.authority))


def test_what_was_said_is_kept_until_it_is_not_said_any_more(tmp_path):
    folder = tmp_path / "router"
    place = outside.outside("127.0.0.1:18000")
    assert outside.kept(folder) is None

    outside.keep(folder, place)
    assert outside.kept(folder) == place
    assert (folder / outside.FILE).stat().st_mode & 0o077 == 0

    outside.keep(folder, None)
    assert outside.kept(folder) is None


@given(st.text(max_size=60))
def test_the_first_part_of_a_node_id_is_a_service_the_router_or_refused(node):
    whose = node.partition("/")[0]
    try:
        found = front_for(FRONT, asked(node, ""))
    except NotFound:
        assert whose not in ("goat", "cow", "side")
    else:
        assert whose == found.name
        assert found.services.keys() <= FRONT.services.keys()


def test_a_service_takes_every_request_where_only_it_is_asked_for():
    found = front_for(FRONT, asked("cow/shed", "127.0.0.1:9000"))
    assert (found.routes, found.listen, found.local) == ((Route(service=COW),), ("127.0.0.1", 9000), True)
    assert found.services == {COW: FRONT.services[COW]}


def test_a_sidecar_that_others_reach_believes_nobody():
    assert not front_for(FRONT, asked("side", "10.0.0.7:9000")).local


def test_without_our_listener_nothing_is_asked_for_that_it_would_do():
    found = front_for(FRONT, asked("side/a", "")).services
    assert found == {GOAT: TrafficSettings(), COW: FRONT.services[COW]}


@pytest.mark.parametrize("listen", ["9000", "goat:1", "127.0.0.1:0", "127.0.0.1:70000", "[::1]"])
def test_a_listener_is_at_an_address(listen):
    with pytest.raises(InputRefused):
        asked("goat", listen)
