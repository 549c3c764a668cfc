"""A service's file says who gets which version: from the registry through the router's daemon to users."""

from __future__ import annotations

import asyncio
import re
import ssl
import time

import msgspec
import pytest
import trustme

from milkrun.consul import keys
from milkrun.model import CommitId, CommitMark, ServiceName, VersionName
from milkrun.router.override import cookie_name, cookie_value
from milkrun.router.override_key import key_at
from milkrun.settings.service import PublishedService, ServiceSettings, TrafficSettings

GOAT = ServiceName("goat")
USERS = [f"user-{number}" for number in range(60)]


async def settle(fleet, **traffic) -> None:
    """The service's settings are in the registry."""
    settings = ServiceSettings(command=["goat"], traffic=TrafficSettings(**traffic))
    published = PublishedService(mark=CommitMark(commit=CommitId("0" * 40), generation=1), settings=settings)
    await fleet.registry.put(keys.service_settings(GOAT), msgspec.json.encode(published))


async def ask(fleet, cookie: str = "", context: ssl.SSLContext | None = None) -> tuple[str, list[str]]:
    """Who answered, and the cookies that came with it."""
    name = "shop.example" if context else None
    reader, writer = await asyncio.open_connection(*fleet.listen, ssl=context, server_hostname=name)
    said = f"Cookie: {cookie}\r\n" if cookie else ""
    writer.write(f"GET / HTTP/1.1\r\nHost: goat\r\n{said}Connection: close\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 20)).decode().partition("\r\n\r\n")
    writer.close()
    return body, re.findall(r"(?i)^set-cookie: (.*?)\r?$", head, re.MULTILINE)


async def test_testers_and_users_that_stay(fleet):
    await settle(fleet, sticky="cookie:visitor", override="cookie")
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 100, "0.0.2": 0})
    async with fleet.router():
        await fleet.reported(lambda report: report.generation == 1)
        file = fleet.state / "override.key"
        assert file.stat().st_mode & 0o777 == 0o600
        value = cookie_value(GOAT, VersionName("0.0.2"), int(time.time()) + 60, key_at(file))
        assert (await ask(fleet, f"visitor=me; {cookie_name(GOAT)}={value}"))[0] == "b"
        assert (await ask(fleet, "visitor=me"))[0] == "a"

        was = dict.fromkeys(USERS, "a")
        for generation, share in enumerate((5, 30, 60), start=2):
            commit = await fleet.weigh(generation, {"0.0.1": 100 - share, "0.0.2": share})
            report = await fleet.reported(lambda report, commit=commit: report.commit == commit)
            now = {user: (await ask(fleet, f"visitor={user}"))[0] for user in USERS}
            assert all(now[user] == "b" for user in USERS if was[user] == "b")
            was = now
        assert set(was.values()) == {"a", "b"}
        assert report.reloads == 0


async def test_users_find_their_version_again_when_it_comes_back_after_a_router_has_started_anew(fleet):
    """Where users are at home is remembered on disk: also while nobody is there."""
    await settle(fleet, sticky="cookie:visitor")
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    c = await fleet.goat("c", "0.0.3")
    await fleet.weigh(1, {"0.0.1": 60, "0.0.3": 40})
    async with fleet.router(hand_over=True):
        await fleet.reported(lambda report: report.generation == 1)
        await fleet.weigh(2, {"0.0.1": 40, "0.0.2": 30, "0.0.3": 30})
        await fleet.reported(lambda report: report.generation == 2)
        was = {user: (await ask(fleet, f"visitor={user}"))[0] for user in USERS}
        assert set(was.values()) == {"a", "b", "c"}
        await fleet.registry.report("service:c", "critical", "cow")
        await fleet.serves("a", "b")
    async with fleet.router():
        away = {user: (await ask(fleet, f"visitor={user}"))[0] for user in USERS}
        assert all(away[user] == name for user, name in was.items() if name != "c")
        await fleet.registry.report("service:c", "passing", "")
        await fleet.serves("a", "b", "c")
        assert {user: (await ask(fleet, f"visitor={user}"))[0] for user in USERS} == was
        assert c.seen


@pytest.mark.parametrize("tls", [True, False])
async def test_a_users_cookie_is_for_tls_only_where_it_was_given_so(fleet, tmp_path, tls):
    context = None
    if tls:
        authority = trustme.CA()
        (tmp_path / "certificates").mkdir()
        pem = authority.issue_cert("shop.example").private_key_and_cert_chain_pem
        (tmp_path / "certificates" / "shop.pem").write_bytes(pem.bytes())
        context = ssl.create_default_context()
        authority.configure_trust(context)
        await fleet.settle(certificates=str(tmp_path / "certificates"))
    await settle(fleet, sticky="cookie:visitor")
    await fleet.goat("a", "0.0.1")
    async with fleet.router():
        await fleet.serves("a")
        [cookie] = (await ask(fleet, context=context))[1]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax" + "; Secure" * tls)


async def test_new_settings_are_taken_over_by_a_reload_that_costs_nothing(fleet):
    await settle(fleet)
    await fleet.goat("a", "0.0.1")
    b = await fleet.goat("b", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 100, "0.0.2": 0})
    async with fleet.router():
        await fleet.reported(lambda report: report.generation == 1)
        assert (await ask(fleet))[1] == []
        answers = []
        await settle(fleet, sticky="cookie:visitor", mirror="0.0.2", slow_start_s=5.0)
        async with asyncio.timeout(30):
            while not b.seen:
                answers.append((await ask(fleet))[0])
        assert set(answers) == {"a"}
        assert len((await ask(fleet))[1]) == 1
