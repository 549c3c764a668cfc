"""The answers of 5xx that this registry may give: Consul refuses so too, and its clients know the words.

Each one has a request that brings it about; test_known_errors.py compares the answer with a real Consul's.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

UUID = "6a1d5f0c-0000-4000-8000-00000000abcd"
SECRET = "6a1d5f0c-0000-4000-8000-000000005ec2"


class Known(NamedTuple):
    """A refusal with 500: a whole text as a pattern, why it is so, and a request for it."""

    text: str
    why: str
    method: str
    path: str
    body: Any = None
    theirs: str = ""
    """Consul's words, where they are others."""


_NODE = {"Node": "n1", "Address": "127.0.0.1", "SkipNodeUpdate": True}

KNOWN = (
    Known("No path to datacenter", "there is one datacenter", "GET", "/v1/kv/a?dc=x"),
    Known(
        r'strconv\.ParseUint: parsing ".*": .*',
        "numbers in a query are read after routing, and Go's words reach the client",
        "PUT",
        "/v1/kv/a?cas=x",
    ),
    # Locks and sessions
    Known(
        r'invalid session ".*"',
        "a lock is asked for a session that is gone",
        "PUT",
        f"/v1/kv/a?acquire={UUID}",
    ),
    Known("missing session", "a lock for no session", "PUT", "/v1/kv/a?acquire="),
    Known(
        r"failed session lookup: index error: UUID must be 36 characters",
        "the store says how long an id is",
        "GET",
        "/v1/session/info/x",
    ),
    Known(
        "Missing node registration",
        "a session on a node that is not there",
        "PUT",
        "/v1/session/create",
        {"Node": "x"},
    ),
    Known(
        r"Check '.*' is in critical state",
        "or on a check that is critical",
        "PUT",
        "/v1/session/create",
        {"Checks": ["ill"]},
    ),
    Known(
        r"Missing check '.*' registration", "or on a check", "PUT", "/v1/session/create", {"Checks": ["x"]}
    ),
    Known(
        r"Invalid Behavior setting '.*'",
        "sessions are judged by the server",
        "PUT",
        "/v1/session/create",
        {"Behavior": "x"},
    ),
    Known(r"Session TTL '.*' invalid: .*", "the same", "PUT", "/v1/session/create", {"TTL": "x"}),
    Known(
        r"Invalid Session TTL '-?\d+', must be between .*",
        "the same",
        "PUT",
        "/v1/session/create",
        {"TTL": "1s"},
    ),
    # The agent's services and checks
    Known(
        r'CheckID ".*" does not have associated TTL',
        "nobody reports to such a check",
        "PUT",
        "/v1/agent/check/pass/x",
    ),
    Known(
        r'ServiceID ".*" does not exist',
        "a check of a service that is not there",
        "PUT",
        "/v1/agent/check/register",
        {"Name": "x", "TTL": "9s", "ServiceID": "x"},
    ),
    Known("ServiceID missing", "the agent looks for the id", "PUT", "/v1/agent/service/deregister/"),
    Known(
        r"Bad request: Missing (serviceID|service Name)", "the same", "GET", "/v1/agent/health/service/id/"
    ),
    # The catalog
    Known("Must provide node", "the catalog's server judges the body", "PUT", "/v1/catalog/register", {}),
    Known(
        "Must provide address if SkipNodeUpdate is not set",
        "the same",
        "PUT",
        "/v1/catalog/register",
        {"Node": "x"},
    ),
    Known(
        r"Must provide service name \(Service\.Service\) when registering a service",
        "the same",
        "PUT",
        "/v1/catalog/register",
        {**_NODE, "Service": {"Port": 1}},
        theirs="failed inserting service: failed inserting service: object missing primary index",
    ),
    Known(
        "Must provide service name with ID",
        "the same",
        "PUT",
        "/v1/catalog/register",
        {**_NODE, "Service": {"ID": "x"}},
    ),
    Known(
        r"failed inserting check: Missing service registration.*",
        "a check of a service that is not there",
        "PUT",
        "/v1/catalog/register",
        {**_NODE, "Check": {"CheckID": "x", "Name": "x", "Status": "passing", "ServiceID": "x"}},
    ),
    Known(
        "Must provide a check ID or name",
        "the same",
        "PUT",
        "/v1/catalog/register",
        {**_NODE, "Check": {"Output": "x"}},
        theirs="failed inserting check: failed inserting check: object missing primary index.*",
    ),
    # What a cluster has, and one server has not
    Known(
        "Network segments are not supported in this version of Consul",
        "an enterprise's",
        "GET",
        "/v1/agent/members?segment=x",
    ),
    Known(r"agent: No node found with name '.*'", "there is no other node", "PUT", "/v1/agent/force-leave/x"),
    Known(
        r'(id|address) ".*" was not found in the Raft configuration',
        "the same",
        "DELETE",
        "/v1/operator/raft/peer?id=x",
    ),
    Known(r"2 errors occurred:.*Keyring is empty.*", "nothing is gossiped", "GET", "/v1/operator/keyring"),
    # Events
    Known(
        r"Invalid (node|service|tag) filter: error parsing regexp: .*",
        "events are judged by the agent",
        "PUT",
        "/v1/event/fire/x?node=(",
    ),
    Known("Cannot provide tag filter without service filter", "the same", "PUT", "/v1/event/fire/x?tag=x"),
    Known(
        r"1 error occurred:.*user event exceeds configured limit of 512 bytes.*",
        "the same",
        "PUT",
        "/v1/event/fire/x",
        "x" * 600,
    ),
    # Tokens and policies
    Known(
        r"failed acl (token|policy|role) lookup: index error: UUID must be 36 characters",
        "the store says how long an id is",
        "GET",
        "/v1/acl/token/x",
    ),
    Known(
        r"Service identity is missing the service name field on this (token|role)",
        "the server judges tokens",
        "PUT",
        "/v1/acl/token",
        {"ServiceIdentities": [{"ServiceName": ""}]},
    ),
    Known(
        r'Service identity ".*" has an invalid name. Only alphanumeric.*',
        "the same",
        "PUT",
        "/v1/acl/token",
        {"ServiceIdentities": [{"ServiceName": "Bad Name"}]},
    ),
    Known(
        r"Node identity (is missing the (node name|datacenter) field on this|has an invalid name).*",
        "the same",
        "PUT",
        "/v1/acl/role",
        {"Name": "x", "NodeIdentities": [{"NodeName": "n"}]},
    ),
    Known(
        r"Service identity .* cannot specify a list of datacenters on a local token",
        "the same",
        "PUT",
        "/v1/acl/token",
        {"Local": True, "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}]},
    ),
    Known(
        r"(Token Expiration TTL|ExpirationTime cannot be|Cannot change expiration time|cannot toggle local).*",
        "the server knows the time",
        "PUT",
        "/v1/acl/token",
        {"ExpirationTTL": "1s"},
    ),
    Known(
        "AuthMethod field is disallowed outside of Login",
        "the same",
        "PUT",
        "/v1/acl/token",
        {"AuthMethod": "x"},
    ),
    Known(
        r"Invalid Role: (no Name is set|invalid Name\..*|A Role with Name .* already exists)",
        "the server judges roles",
        "PUT",
        "/v1/acl/role",
        {"Name": "é"},
    ),
    Known("cannot find role .*", "there is none to change", "PUT", f"/v1/acl/role/{UUID}", {"Name": "x"}),
    Known(
        r'No such ACL role with (ID|name) ".*"',
        "a token with a role that is not there",
        "PUT",
        "/v1/acl/token",
        {"Roles": [{"Name": "x"}]},
    ),
    Known(
        "Invalid Token: the SecretID is already in use",
        "it has an owner",
        "PUT",
        "/v1/acl/token",
        {"SecretID": SECRET},
        theirs="Invalid Token: SecretID is already in use",
    ),
    Known(
        r'Cannot find (token ".*"|policy .*)', "there is none to change", "PUT", f"/v1/acl/token/{UUID}", {}
    ),
    Known(
        r'No such ACL policy with (ID|name) ".*"',
        "a token with a policy that is not there",
        "PUT",
        "/v1/acl/token",
        {"Policies": [{"Name": "x"}]},
    ),
    Known(
        r"Invalid Policy: (invalid Name\..*|A Policy with Name .* already exists)",
        "the server judges policies",
        "PUT",
        "/v1/acl/policy",
        {"Name": "é"},
    ),
)

_ANY = re.compile("|".join(f"(?:{each.text})" for each in KNOWN), re.DOTALL)


def is_known(text: str) -> bool:
    """Whether the text of a 500 is one of these."""
    return bool(_ANY.fullmatch(text.strip()))
