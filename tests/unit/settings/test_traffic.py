"""What `[traffic]` may say of who gets which version, and what is refused with its line."""

from __future__ import annotations

import pytest

from milkrun.errors import InputRefused
from milkrun.settings import service

COMMAND = 'command = ["{python}"]\n[traffic]\n'


def load(text: str):
    return service.load((COMMAND + text).encode(), "services/goat.toml").traffic


@pytest.mark.parametrize("sticky", ["", "address", "cookie:visitor", "cookie:a.b_c-d", "header:X-User"])
def test_what_a_user_is_known_by(sticky):
    assert load(f'sticky = "{sticky}"').sticky == sticky


@pytest.mark.parametrize(
    "sticky",
    [
        "ip",
        "cookie",
        "cookie:",
        "cookie:a b",
        "cookie:a;b",
        "cookie:a)b",
        "header:a%b",
        "cookie:ä",
        "address:1",
        "cookie:milkrun-version-goat",
        "cookie:" + "a" * 61,
    ],
)
def test_what_a_user_cannot_be_known_by(sticky):
    with pytest.raises(InputRefused, match="`address`, `cookie:NAME` or `header:NAME`") as refused:
        load(f'sticky = "{sticky}"')
    assert refused.value.line == 3


def test_a_tcp_service_has_addresses_only():
    assert load('protocol = "tcp"\nsticky = "address"').sticky == "address"
    with pytest.raises(InputRefused, match="TCP service"):
        load('protocol = "tcp"\nsticky = "cookie:a"')
    with pytest.raises(InputRefused, match="speak HTTP"):
        load('protocol = "tcp"\noverride = "cookie"')


def test_how_a_tester_may_ask():
    assert load("").override == ""
    assert load('override = "cookie"').override == "cookie"
    assert load('override = "header:X-Version"\noverride_from = ["10.0.0.0/8", "::1/128"]').override_from


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Cookie",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-Real-IP",
        "X-Milkrun-Version",
        "X-",
        "X-a b",
    ],
)
def test_a_header_that_means_something_else_is_no_override(name):
    """It is taken away before the instance."""
    with pytest.raises(InputRefused, match="a header that nobody else uses"):
        load(f'override = "header:{name}"\noverride_from = ["127.0.0.1"]')


def test_an_override_by_header_says_from_where():
    with pytest.raises(InputRefused, match="needs `override_from`"):
        load('override = "header:X-Version"')
    with pytest.raises(InputRefused, match="only that does"):
        load('override = "cookie"\noverride_from = ["127.0.0.1"]')
    with pytest.raises(InputRefused, match="is not a network"):
        load('override = "header:X-Version"\noverride_from = ["10.0.0.1/8"]')


@pytest.mark.parametrize("seconds", ["-1", "3601", "nan", "inf"])
def test_a_slow_start_has_an_end(seconds):
    with pytest.raises(InputRefused, match="0 to 3600 seconds"):
        load(f"slow_start_s = {seconds}")
    assert load("slow_start_s = 30").slow_start_s == 30


@pytest.mark.parametrize(
    "text",
    [
        "failures_percent = 0",
        "failures_percent = 101",
        "failures_percent = nan",
        "silent_s = 0.5",
        "slow_times = 1",
        "slow_times = inf",
    ],
)
def test_the_limits_of_who_is_put_aside_are_some_that_make_sense(text):
    with pytest.raises(InputRefused, match="has to be"):
        load(f"[traffic.ejection]\n{text}")


def test_who_is_put_aside_may_be_said_or_that_nobody_is():
    assert load("").ejection.enabled
    assert not load("[traffic.ejection]\nenabled = false").ejection.enabled
    assert load("[traffic.ejection]\nsilent_s = 60").ejection.silent_s == 60


@pytest.mark.parametrize("key", ["idle_limit_s", "reload_limit_s"])
@pytest.mark.parametrize("seconds", ["0", "0.5", "86401", "nan"])
def test_long_requests_have_limits(key, seconds):
    with pytest.raises(InputRefused, match="1 to 86400 seconds"):
        load(f"{key} = {seconds}")
    assert getattr(load(f"{key} = 7200"), key) == 7200


def test_a_version_may_get_copies():
    traffic = load('mirror = "0.0.3+rc.1"\nmirror_percent = 0.01')
    assert (traffic.mirror, traffic.mirror_percent) == ("0.0.3+rc.1", 0.01)
    assert load("").mirror == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('mirror = "a b"', "is not a version"),
        ('protocol = "tcp"\nmirror = "1"', "speak HTTP"),
        ('mirror = "1"\nmirror_percent = 0', "0.01 to 100"),
        ('mirror = "1"\nmirror_percent = 100.1', "0.01 to 100"),
        ('mirror = "1"\nmirror_percent = nan', "0.01 to 100"),
    ],
)
def test_copies_that_cannot_be(text, why):
    with pytest.raises(InputRefused, match=why):
        load(text)
