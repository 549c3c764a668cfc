"""Where tokens are, and where they are not; and from when on one is worth nothing."""

from __future__ import annotations

import gzip
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from security.process import Answer, Daemon

SHOP = 'key_prefix "shop/" { policy = "write" }'


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def leaks(secrets: list[str], where: dict[str, bytes]) -> list[str]:
    """The places that hold one of the secrets, also without its dashes or in part."""
    parts = {part.encode() for secret in secrets for part in (secret, secret.replace("-", ""), secret[4:28])}
    return sorted(name for name, data in where.items() if any(part in data for part in parts))


def of_process(pid: int) -> dict[str, bytes]:
    return {name: Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")}


def unpacked(snapshot: bytes) -> bytes:
    return gzip.decompress(snapshot)


def test_no_secret_is_anywhere_but_in_its_file(daemon, tmp_path):
    unknown, told = "never-made-never-made-never-made-00", "chosen-by-whoever-made-the-token-000"
    with daemon.serving():
        own = daemon.token
        secret, accessor, policy = daemon.made(SHOP)
        chosen = daemon.must("PUT", "/v1/acl/token", {"SecretID": told, "Policies": [{"ID": policy}]})
        clone = daemon.must("PUT", f"/v1/acl/token/{accessor}/clone")
        secrets = [own, secret, told, clone["SecretID"], unknown]
        assert chosen["SecretID"] == told
        for each in secrets:
            for headers in ({"X-Consul-Token": each}, {"Authorization": f"Bearer {each}"}):
                daemon.ask("PUT", "/v1/kv/shop/a", b"v", **headers)
                daemon.ask("PUT", "/v1/kv/elsewhere", b"v", **headers)
                daemon.ask("PUT", "/v1/agent/service/register", b"no json", **headers)
                daemon.ask("GET", f"/v1/kv/shop/a?token={each}", **headers)
                daemon.ask("GET", f"/v1/nowhere?token={each}", **headers)
                daemon.ask("BREW", "/v1/kv/shop/a", **headers)
        snapshot = daemon.must_bytes("/v1/snapshot")
        lists = {path: daemon.ask("GET", path, token=own).body for path in SHOWN}
        running = of_process(daemon.process.pid)
        live = files(tmp_path)
    after = files(tmp_path)

    assert leaks([own], live) == ["data/token"]
    assert leaks(secrets[1:], live) == []
    assert leaks(secrets, after) == ["data/token"]
    assert leaks(secrets, {"snapshot": snapshot, "unpacked": unpacked(snapshot)} | lists | running) == []
    assert leaks([accessor], {"unpacked": unpacked(snapshot)}) == ["unpacked"], (
        "the search finds what is there"
    )
    assert any(b"access is controlled" in data for data in after.values()), (
        "the log is among what was searched"
    )


SHOWN = ["/v1/acl/tokens", "/v1/acl/policies", "/v1/agent/self", "/v1/agent/metrics"]


def test_the_token_file_is_its_owners_alone_and_stays_through_restarts(daemon):
    with daemon.serving():
        own = daemon.token
        assert stat.S_IMODE(daemon.token_file.stat().st_mode) == 0o600
        secret, _, _ = daemon.made(SHOP)
        assert daemon.ask("PUT", "/v1/kv/shop/a", b"v").status == 403, "a write without a token"
        assert daemon.ask("GET", "/v1/kv/shop/a").status == 404, "this machine may read"
    with daemon.serving():
        assert daemon.token == own
        assert daemon.ask("PUT", "/v1/kv/other", b"v", own).status == 200
        assert daemon.ask("PUT", "/v1/kv/shop/a", b"v", secret).status == 200
        assert daemon.ask("PUT", "/v1/kv/other", b"v", secret).status == 403


def test_another_secret_in_the_file_makes_the_old_one_worthless(daemon):
    with daemon.serving():
        old = daemon.token
        secret, _, _ = daemon.made(SHOP)
    daemon.token_file.write_text("another-secret-another-secret-another\n")
    with daemon.serving():
        for path in ("/v1/kv/a", "/v1/acl/tokens", "/v1/catalog/services"):
            answer = daemon.ask("GET", path, token=old)
            assert (answer.status, answer.body) == (403, b"ACL not found")
        assert daemon.ask("PUT", "/v1/kv/a", b"v", daemon.token).status == 200
        assert daemon.ask("PUT", "/v1/kv/shop/a", b"v", secret).status == 200, "what it made stays"


@pytest.mark.parametrize("what", ["others may read it", "a link", "too short", "a folder"])
def test_a_token_file_that_cannot_be_trusted_stops_the_start(daemon, tmp_path, what):
    daemon.data.mkdir()
    good = "good-secret-good-secret-good-secret"
    if what == "a folder":
        daemon.token_file.mkdir()
    elif what == "a link":
        (tmp_path / "elsewhere").write_text(good)
        (tmp_path / "elsewhere").chmod(0o600)
        daemon.token_file.symlink_to(tmp_path / "elsewhere")
    else:
        daemon.token_file.write_text("short" if what == "too short" else good)
        daemon.token_file.chmod(0o640 if what.startswith("others") else 0o600)

    process = daemon.start()
    assert process.wait(30) == 8, daemon.log.read_text()
    told = daemon.log.read_text()
    assert "token file is refused" in told
    assert good not in told


class Parked:
    """A watch that waits in a thread."""

    def __init__(self, daemon: Daemon, path: str, token: str) -> None:
        index = daemon.ask("GET", path, token=token).headers["X-Consul-Index"]
        self.answers: list[Answer] = []
        asked = f"{path}{'&' if '?' in path else '?'}index={index}&wait=60s"
        self._thread = threading.Thread(
            target=lambda: self.answers.append(daemon.ask("GET", asked, token=token)), daemon=True
        )
        self._thread.start()

    def result(self) -> Answer:
        self._thread.join(30)
        assert self.answers, "the watch did not come back"
        return self.answers[0]


def waiting(daemon: Daemon, count: int) -> None:
    """So many watches wait: their number is one of the registry's own figures."""
    for _ in range(2000):
        gauges: list[dict[str, Any]] = daemon.must("GET", "/v1/agent/metrics")["Gauges"]
        if next(each["Value"] for each in gauges if each["Name"] == "milkrun.registry.watchers") >= count:
            return
    raise AssertionError(f"there are never {count} watches")


def test_a_watch_whose_token_is_deleted_ends_with_403_at_its_next_wake(daemon):
    with daemon.serving():
        secret, accessor, _ = daemon.made(SHOP)
        other, _, _ = daemon.made(SHOP, "other")
        daemon.must("PUT", "/v1/kv/shop/a", b"1")
        gone = [
            Parked(daemon, path, secret)
            for path in ("/v1/kv/shop/a", "/v1/kv/shop/?recurse", "/v1/kv/shop/?keys")
        ]
        stays = Parked(daemon, "/v1/kv/shop/a", other)
        waiting(daemon, 4)
        daemon.must("DELETE", f"/v1/acl/token/{accessor}")
        daemon.must("PUT", "/v1/kv/shop/a", b"the-news")

        for each in gone:
            answer = each.result()
            assert (answer.status, answer.body) == (403, b"ACL not found")
        assert stays.result().status == 200


def test_a_watch_whose_policy_is_narrowed_does_not_see_the_news(daemon):
    with daemon.serving():
        secret, _, policy = daemon.made(SHOP)
        daemon.must("PUT", "/v1/kv/shop/a", b"1")
        one, tree = Parked(daemon, "/v1/kv/shop/a", secret), Parked(daemon, "/v1/kv/shop/?recurse", secret)
        waiting(daemon, 2)
        narrowed = f'{SHOP}\nkey "shop/a" {{ policy = "deny" }}'
        daemon.must("PUT", f"/v1/acl/policy/{policy}", {"Name": "p", "Rules": narrowed})
        daemon.must("PUT", "/v1/kv/shop/a", b"the-news")

        assert one.result().status == 403
        assert tree.result().body == b""
        assert tree.result().headers["X-Consul-Results-Filtered-By-ACLs"] == "true"


def test_two_watches_on_the_same_see_each_what_they_may(daemon):
    """Answers to the same question are made once; that must not be once for all tokens."""
    with daemon.serving():
        shop, _, _ = daemon.made(SHOP)
        spared, _, _ = daemon.made(f'{SHOP}\nkey "shop/secret" {{ policy = "deny" }}', "spared")
        daemon.must("PUT", "/v1/kv/shop/secret", b"1")
        daemon.must("PUT", "/v1/kv/shop/a", b"1")
        watches = {token: Parked(daemon, "/v1/kv/shop/?keys", token) for token in (shop, spared, "")}
        waiting(daemon, 3)
        daemon.must("PUT", "/v1/kv/shop/secret", b"2")

        assert watches[shop].result().json == ["shop/a", "shop/secret"]
        assert watches[spared].result().json == ["shop/a"]
        assert watches[""].result().json == ["shop/a", "shop/secret"], "this machine reads all"


def test_a_snapshot_carries_tokens_and_brings_them_back(daemon, tmp_path):
    with daemon.serving():
        secret, accessor, _ = daemon.made(SHOP)
        snapshot = daemon.must_bytes("/v1/snapshot")
        daemon.must("DELETE", f"/v1/acl/token/{accessor}")
        later, _, _ = daemon.made(SHOP, "later")
        own = daemon.token
        assert daemon.ask("PUT", "/v1/kv/shop/a", b"v", secret).status == 403

        daemon.must("PUT", "/v1/snapshot", snapshot)
        assert daemon.ask("PUT", "/v1/kv/shop/a", b"v", secret).status == 200
        assert daemon.ask("PUT", "/v1/kv/shop/a", b"v", later).status == 403
        assert daemon.ask("PUT", "/v1/kv/other", b"v", own).status == 200, "the own token is the file's"
        assert daemon.ask("PUT", "/v1/snapshot", snapshot, secret).status == 403
    (tmp_path / "other").mkdir()
    elsewhere = Daemon(tmp_path / "other", acl="closed")
    with elsewhere.serving():
        elsewhere.must("PUT", "/v1/snapshot", snapshot)
        assert elsewhere.ask("PUT", "/v1/kv/shop/a", b"v", secret).status == 200
        assert elsewhere.ask("PUT", "/v1/kv/shop/a", b"v", own).status == 403


def test_open_access_is_warned_of_and_asks_nobody(daemon):
    daemon.acl = "open"
    with daemon.serving():
        assert daemon.ask("PUT", "/v1/kv/a", b"v").status == 200
        assert daemon.ask("PUT", "/v1/kv/a", b"v", "whatever-is-shown").status == 200
        assert daemon.ask("GET", "/v1/acl/tokens").status == 401
    assert not daemon.token_file.exists()
    assert "access is open" in daemon.log.read_text()
