from __future__ import annotations

import base64

import pytest


def fired(server, name, payload=b"", **params):
    answer = server.put(f"/v1/event/fire/{name}", payload, **params)
    assert answer.status == 200, answer.text
    return answer.json


def heard(server, name):
    """The events of that name, once there are any: index 1 says that the asker knows of none."""
    return server.get("/v1/event/list", name=name, index="1", wait="10s")


def index_of(event_id):
    """How Consul's Go client reckons it."""
    digits = event_id.replace("-", "")
    return int(digits[:16], 16) ^ int(digits[16:], 16)


def test_what_is_fired_is_heard(server, same):
    name = server.unique("deploy")
    event = fired(server, name, b"now")
    same(
        event,
        {
            "Name": name,
            "Payload": base64.b64encode(b"now").decode(),
            "NodeFilter": "",
            "ServiceFilter": "",
            "TagFilter": "",
            "Version": 1,
            "LTime": 0,
        },
    )
    answer = heard(server, name)
    assert [each["ID"] for each in answer.json] == [event["ID"]]
    assert answer.json[0]["LTime"] > 0
    assert answer.index == index_of(event["ID"])


def test_no_payload_is_null(server):
    name = server.unique("deploy")
    assert fired(server, name)["Payload"] is None
    assert heard(server, name).json[0]["Payload"] is None


def test_events_come_in_order_and_all_are_listed(server):
    first, second = server.unique("one"), server.unique("two")
    for name in (first, second):
        fired(server, name)
        heard(server, name)
    listed = server.get("/v1/event/list")
    assert [each["Name"] for each in listed.json][-2:] == [first, second]
    assert [each["LTime"] for each in listed.json] == sorted(each["LTime"] for each in listed.json)
    assert listed.index == index_of(listed.json[-1]["ID"])


def test_a_name_that_nobody_fired(server):
    answer = server.get("/v1/event/list", name=server.unique("never"))
    assert (answer.status, answer.json) == (200, [])
    assert answer.index == 1


def test_an_event_wakes_who_waits_for_it(server):
    name = server.unique("deploy")
    parked = server.parked("/v1/event/list", server.get("/v1/event/list", name=name).index, name=name)
    assert parked.still_waits()
    event = fired(server, name)
    answer = parked.result()
    assert [each["ID"] for each in answer.json] == [event["ID"]]
    parked = server.parked("/v1/event/list", answer.index, name=name)
    assert parked.still_waits()
    again = fired(server, name)
    assert [each["ID"] for each in parked.result().json] == [event["ID"], again["ID"]]


def test_any_other_index_is_answered_at_once(server):
    name = server.unique("deploy")
    fired(server, name)
    index = heard(server, name).index
    for other in (index - 1, index + 1):
        assert server.get("/v1/event/list", name=name, index=str(other), wait="20s").index == index


@pytest.mark.parametrize(
    ("filters", "here"),
    [
        ({"node": "n1"}, True),
        ({"node": "^n"}, True),
        ({"node": "nope"}, False),
        ({"service": "^listener$"}, True),
        ({"service": "^listener$", "tag": "^ear"}, True),
        ({"service": "^listener$", "tag": "nope"}, False),
        ({"service": "nope"}, False),
        ({"service": "^consul$"}, False),
        ({"node": "n1", "service": "nope"}, False),
    ],
)
def test_only_nodes_that_are_meant_hear_it(server, filters, here):
    name = server.unique("deploy")
    server.put("/v1/agent/service/register", {"Name": "listener", "Tags": ["ears"]})
    event = fired(server, name, **filters)
    assert event["NodeFilter"] == filters.get("node", "")
    assert event["ServiceFilter"] == filters.get("service", "")
    assert event["TagFilter"] == filters.get("tag", "")
    after = server.unique("after")
    fired(server, after)
    heard(server, after)
    assert bool(server.get("/v1/event/list", name=name).json) is here


@pytest.mark.parametrize(
    ("payload", "params", "words"),
    [
        (b"y" * 600, {}, "user event exceeds configured limit of 512 bytes before encoding"),
        (b"", {"tag": "t"}, "Cannot provide tag filter without service filter"),
        (b"", {"node": "["}, "Invalid node filter: error parsing regexp: missing closing ]: `[`"),
        (b"", {"service": "("}, "Invalid service filter: error parsing regexp"),
        (b"", {"service": "x", "tag": "*"}, "Invalid tag filter: error parsing regexp"),
    ],
)
def test_what_is_refused(server, payload, params, words):
    answer = server.put("/v1/event/fire/x", payload, **params)
    assert answer.status == 500
    assert words in answer.text


def test_an_event_has_a_name(server):
    answer = server.put("/v1/event/fire/")
    assert (answer.status, answer.text.strip()) == (400, "Missing name")
