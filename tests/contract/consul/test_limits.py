"""How much one request may carry: the same statuses, and where the limits are the same, the same texts."""

from __future__ import annotations

import base64

KIB = 1024


def test_a_value_of_512_kib_is_stored_and_one_byte_more_is_refused(server):
    key = server.unique("limits")
    assert server.put(f"/v1/kv/{key}", b"x" * 512 * KIB).status == 200
    refused = server.put(f"/v1/kv/{key}", b"x" * (512 * KIB + 1))
    assert refused.status == 413
    assert refused.text.startswith("Request body(524289 bytes) too large, max size: 524288 bytes. See ")
    assert len(server.get(f"/v1/kv/{key}", raw="").body) == 512 * KIB


def test_a_transaction_of_more_than_512_kib_is_refused(server):
    value = base64.b64encode(b"x" * 400 * KIB).decode()
    refused = server.put("/v1/txn", [{"KV": {"Verb": "set", "Key": server.unique("limits"), "Value": value}}])
    assert refused.status == 413
    assert "too large, max size: 524288 bytes. See " in refused.text


def test_a_long_key_is_a_key_like_any_other(server):
    key = server.unique("limits") + "k" * 8000
    assert server.put(f"/v1/kv/{key}", b"1").status == 200
    assert server.get(f"/v1/kv/{key}", raw="").body == b"1"
    assert server.put("/v1/txn", [{"KV": {"Verb": "get", "Key": key}}]).status == 200


def test_a_head_without_end_is_refused(server):
    assert server.get("/v1/status/leader" + "x" * 2 * KIB * KIB).status == 431


def test_a_hundred_parameters_are_read(server):
    more = {f"p{number}": "1" for number in range(99)}
    assert server.get("/v1/kv/", keys="", **more).status in (200, 404)
    assert server.get("/v1/catalog/services", dc="nowhere", **more).status == 500
