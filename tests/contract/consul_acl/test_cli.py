"""Consul's own command line makes policies and tokens here as it does with Consul, and uses them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from contract.consul_acl.registries import MASTER, ROOT, Held

pytestmark = pytest.mark.needs("consul")

RULES = 'key_prefix "stable/" { policy = "write" }\nservice "horse" { policy = "write" }\n'
_MASKS = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [^\n]*"), "<time>"),
)


class Cli:
    """Consul's command line with one registry and one token."""

    def __init__(self, server: Held, token: str = MASTER) -> None:
        self.server = server
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")},
            "CONSUL_HTTP_ADDR": f"127.0.0.1:{server.port}",
            "CONSUL_HTTP_TOKEN": token,
        }

    def run(self, *arguments: str) -> tuple[int, str, str]:
        binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
        done = subprocess.run(
            [binary, *arguments],
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def ok(self, *arguments: str) -> str:
        status, out, error = self.run(*arguments)
        assert status == 0, (arguments, out, error)
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "-format=json"))


@pytest.fixture(scope="module")
def clis(both) -> tuple[Cli, Cli]:
    return Cli(both.ours), Cli(both.consul)


def masked(text: str) -> str:
    for pattern, name in _MASKS:
        text = pattern.sub(name, text)
    return text


def same(clis: tuple[Cli, Cli], *arguments: str) -> str:
    """What the command prints, which is the same on both but for ids and times."""
    ours, theirs = (cli.ok(*arguments) for cli in clis)
    assert masked(ours) == masked(theirs)
    return ours


def test_a_policy_is_made_read_changed_listed_and_deleted(clis, tmp_path):
    rules = tmp_path / "rules.hcl"
    rules.write_text(RULES)

    same(
        clis, "acl", "policy", "create", "-name", "stable", "-description", "of horses", "-rules", f"@{rules}"
    )
    assert "of horses" in same(clis, "acl", "policy", "read", "-name", "stable")
    same(
        clis,
        "acl",
        "policy",
        "update",
        "-name",
        "stable",
        "-description",
        "of all horses",
        "-rules",
        'acl = "read"',
    )
    assert 'acl = "read"' in same(clis, "acl", "policy", "read", "-name", "stable")
    for cli in clis:
        listed = {each["Name"]: each["Description"] for each in cli.json("acl", "policy", "list")}
        assert listed["stable"] == "of all horses"
        assert listed["global-management"].startswith("Builtin Policy that grants unlimited access")
        cli.ok("acl", "policy", "delete", "-name", "stable")
        assert "stable" not in {each["Name"] for each in cli.json("acl", "policy", "list")}
        assert cli.run("acl", "policy", "read", "-name", "stable")[0] == 1


def test_a_token_is_made_read_changed_cloned_listed_and_deleted(clis, tmp_path):
    for name in ("hay", "oats"):
        same(
            clis,
            "acl",
            "policy",
            "create",
            "-name",
            name,
            "-rules",
            f'key_prefix "{name}/" {{ policy = "write" }}',
        )
    for cli in clis:
        made = cli.json("acl", "token", "create", "-description", "horses", "-policy-name", "hay")
        accessor, secret = made["AccessorID"], made["SecretID"]
        Cli(cli.server, secret).ok("kv", "put", "hay/a", "v")
        assert Cli(cli.server, secret).run("kv", "put", "oats/a", "v")[0] == 1

        cli.ok("acl", "token", "update", "-id", accessor, "-policy-name", "oats", "-merge-policies")
        Cli(cli.server, secret).ok("kv", "put", "oats/a", "v")
        found = cli.json("acl", "token", "read", "-id", accessor)
        assert {each["Name"] for each in found["Policies"]} == {"hay", "oats"}
        assert found["Description"] == "horses"
        assert Cli(cli.server, secret).json("acl", "token", "read", "-self")["AccessorID"] == accessor

        clone = cli.json("acl", "token", "clone", "-id", accessor, "-description", "foals")
        assert {clone["AccessorID"], clone["SecretID"]}.isdisjoint({accessor, secret})
        Cli(cli.server, clone["SecretID"]).ok("kv", "put", "oats/b", "v")
        listed = {each["AccessorID"]: each for each in cli.json("acl", "token", "list")}
        assert listed[clone["AccessorID"]]["Description"] == "foals"
        assert secret not in json.dumps(listed)

        cli.ok("acl", "token", "delete", "-id", accessor)
        status, _, error = Cli(cli.server, secret).run("kv", "put", "hay/a", "v")
        assert status == 1
        assert "ACL not found" in error
        Cli(cli.server, clone["SecretID"]).ok("kv", "put", "hay/b", "v")
        assert cli.run("acl", "token", "read", "-id", accessor)[0] == 1


def test_a_policy_that_is_deleted_takes_its_rights_along(clis):
    for cli in clis:
        cli.ok(
            "acl", "policy", "create", "-name", "brief", "-rules", 'key_prefix "brief/" { policy = "write" }'
        )
        made = cli.json("acl", "token", "create", "-policy-name", "brief")
        Cli(cli.server, made["SecretID"]).ok("kv", "put", "brief/a", "v")
        cli.ok("acl", "policy", "delete", "-name", "brief")
        assert Cli(cli.server, made["SecretID"]).run("kv", "put", "brief/a", "v")[0] == 1
        assert not cli.json("acl", "token", "read", "-id", made["AccessorID"]).get("Policies")
        clone = cli.json("acl", "token", "clone", "-id", made["AccessorID"])
        assert not clone.get("Policies")


def test_a_service_registers_itself_with_its_identity(clis, tmp_path):
    mare, ox = tmp_path / "mare.json", tmp_path / "ox.json"
    mare.write_text(json.dumps({"Service": {"Name": "mare", "Port": 1}}))
    ox.write_text(json.dumps({"Service": {"Name": "ox", "Port": 2}}))
    for cli in clis:
        made = cli.json("acl", "token", "create", "-service-identity", "mare")
        assert [each["ServiceName"] for each in made["ServiceIdentities"]] == ["mare"]
        own = Cli(cli.server, made["SecretID"])
        assert "mare" in own.ok("services", "register", str(mare))
        assert own.run("services", "register", str(ox))[0] == 1
        assert "goat" in own.ok("catalog", "services")
        own.ok("services", "deregister", str(mare))


@pytest.mark.parametrize(
    "arguments",
    [
        ("acl", "policy", "create", "-name", "bad name", "-rules", ""),
        ("acl", "policy", "create", "-name", "global-management", "-rules", ""),
        ("acl", "policy", "create", "-name", "shop", "-rules", ""),
        ("acl", "policy", "create", "-name", "wrong", "-rules", 'key "x" { policy = "maybe" }'),
        ("acl", "policy", "delete", "-id", "00000000-0000-0000-0000-000000000001"),
        ("acl", "policy", "read", "-name", "none"),
        ("acl", "policy", "update", "-id", "0a0a0a0a-0000-0000-0000-000000000000", "-name", "none"),
        ("acl", "token", "create", "-policy-name", "none"),
        ("acl", "token", "create", "-policy-id", "0a0a0a0a-0000-0000-0000-000000000000"),
        ("acl", "token", "create", "-role-name", "none"),
        ("acl", "token", "create", "-expires-ttl", "1s"),
        ("acl", "token", "create", "-expires-ttl", "25h"),
        ("acl", "token", "create", "-node-identity", "Bad Name:dc1"),
        ("acl", "role", "create", "-name", "bad name", "-policy-name", "reads"),
        ("acl", "role", "create", "-name", "none", "-policy-name", "none"),
        ("acl", "role", "read", "-name", "none"),
        ("acl", "role", "read", "-id", "0a0a0a0a-0000-0000-0000-000000000000"),
        ("acl", "token", "create", "-accessor", "00000000-0000-0000-0000-000000000002"),
        ("acl", "token", "create", "-secret", "00000000-0000-0000-0000-000000000009"),
        ("acl", "token", "delete", "-id", "00000000-0000-0000-0000-000000000002"),
        ("acl", "token", "read", "-id", "0a0a0a0a-0000-0000-0000-000000000000"),
        ("acl", "token", "clone", "-id", "0a0a0a0a-0000-0000-0000-000000000000"),
        ("acl", "bootstrap"),
    ],
    ids=" ".join,
)
def test_what_consul_refuses_is_refused_here(clis, arguments):
    ours, theirs = (cli.run(*arguments) for cli in clis)

    assert (ours[0], ours[1] == "") == (theirs[0], theirs[1] == "") == (1, True), (ours, theirs)


def test_who_bootstraps_is_told_where_the_token_is(clis):
    _, _, error = clis[0].run("acl", "bootstrap")

    assert "403" in error
    assert "the registry made its own token at its first start, in the file that its log names" in error


def test_a_role_is_made_read_changed_listed_and_deleted(clis):
    for cli in clis:
        rules = 'key_prefix "barn/" { policy = "write" }'
        cli.ok("acl", "policy", "create", "-name", "barn", "-rules", rules)
    same(
        clis,
        *("acl", "role", "create", "-name", "groom", "-description", "of horses", "-policy-name", "barn"),
        *("-service-identity", "foal:dc1", "-node-identity", "n1:dc1"),
    )
    assert "foal" in same(clis, "acl", "role", "read", "-name", "groom")
    for cli in clis:
        made = cli.json("acl", "token", "create", "-role-name", "groom")
        assert [each["Name"] for each in made["Roles"]] == ["groom"]
        holder = Cli(cli.server, made["SecretID"])
        holder.ok("kv", "put", "barn/a", "v")
        role_id = cli.json("acl", "role", "read", "-name", "groom")["ID"]
        cli.ok(
            "acl",
            "role",
            "update",
            "-id",
            role_id,
            *("-name", "groom", "-description", "of all horses", "-no-merge"),
        )
        assert holder.run("kv", "put", "barn/a", "v")[0] == 1, "what a role loses, its tokens lose"
        assert [each["Description"] for each in cli.json("acl", "role", "list")] == ["of all horses"]
        cli.ok("acl", "role", "delete", "-name", "groom")
        assert not cli.json("acl", "token", "read", "-id", made["AccessorID"]).get("Roles")
        assert not cli.json("acl", "token", "clone", "-id", made["AccessorID"]).get("Roles")
    same(clis, "acl", "role", "list")


@pytest.mark.parametrize(("datacenter", "status"), [("dc1", 200), ("dc2", 403)])
def test_an_identity_holds_in_its_datacenter_only(clis, datacenter, status):
    for cli in clis:
        node, service = f"node-of-{datacenter}", f"calf-{datacenter}"
        made = cli.json(
            *("acl", "token", "create", "-node-identity", f"{node}:{datacenter}"),
            *("-service-identity", f"{service}:{datacenter}"),
        )
        headers = {"X-Consul-Token": made["SecretID"]}
        body = {"Node": node, "Address": "10.0.0.7"}
        assert cli.server.ask("PUT", "/v1/catalog/register", body, headers).status == status
        told = cli.server.ask("PUT", "/v1/agent/service/register", {"Name": service}, headers)
        assert told.status == status


def test_a_token_that_expires_says_when_and_is_told_again_unchanged(clis):
    for cli in clis:
        made = cli.json("acl", "token", "create", "-policy-name", "reads", "-expires-ttl", "1h")
        assert made["ExpirationTime"] > made["CreateTime"]
        accessor = made["AccessorID"]
        cli.ok("acl", "token", "update", "-id", accessor, "-description", "brief", "-merge-policies")
        clone = cli.json("acl", "token", "clone", "-id", accessor)
        read = cli.json("acl", "token", "read", "-id", accessor)
        assert read["ExpirationTime"] == clone["ExpirationTime"] == made["ExpirationTime"]


def test_the_registrys_own_token_is_not_changed_over_http(clis):
    own = "00000000-0000-0000-0000-000000000003"
    for arguments in (("update", "-description", "x"), ("delete",), ("clone",)):
        status, _, error = clis[0].run("acl", "token", arguments[0], "-id", own, *arguments[1:])
        assert status == 1
        assert "own" in error


def test_the_anonymous_token_is_given_rights_and_loses_them(clis):
    anonymous = "00000000-0000-0000-0000-000000000002"
    for cli in clis:
        nobody = Cli(cli.server, "")
        assert nobody.run("kv", "get", "open/a")[0] == 1
        cli.ok("kv", "put", "open/a", "v")
        cli.ok("acl", "policy", "create", "-name", "open", "-rules", 'key_prefix "open/" { policy = "read" }')
        cli.ok("acl", "token", "update", "-id", anonymous, "-policy-name", "open")
        assert nobody.ok("kv", "get", "open/a") == "v\n"
        assert nobody.run("kv", "put", "open/a", "w")[0] == 1
        cli.ok("acl", "policy", "delete", "-name", "open")
        assert nobody.run("kv", "get", "open/a")[0] == 1


def test_lists_of_what_there_is_none_of_are_empty(clis):
    for noun in ("auth-method", "binding-rule"):
        assert same(clis, "acl", noun, "list") == ""


def test_a_snapshot_takes_the_right_on_all_tokens(clis, tmp_path):
    ours = clis[0]
    made = ours.json("acl", "token", "create", "-policy-name", "reads")
    file = Path(tmp_path / "s.snap")

    assert Cli(ours.server, made["SecretID"]).run("snapshot", "save", str(file))[0] == 1
    assert not file.exists()


def test_consuls_command_line_saves_inspects_and_restores_snapshots(clis, tmp_path):
    for cli in clis:
        file = str(tmp_path / f"{cli.server.kind}.snap")
        cli.ok("kv", "put", "kept", "before")
        assert "Saved and verified snapshot to index" in cli.ok("snapshot", "save", file)
        assert re.search(r"(?m)^Version +1$", cli.ok("snapshot", "inspect", file))
        cli.ok("kv", "put", "kept", "after")
        cli.ok("snapshot", "restore", file)
        assert cli.ok("kv", "get", "kept") == "before\n"
    status, _, error = clis[0].run("snapshot", "restore", str(tmp_path / f"{clis[1].server.kind}.snap"))
    assert status == 1
    assert "no snapshot of a Milkrun registry; nothing was changed" in error
