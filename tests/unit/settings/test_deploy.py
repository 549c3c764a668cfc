import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused, NotFound
from milkrun.model import VERSIONS_AT_MOST, VersionName, VersionWish
from milkrun.settings import deploy

GOOD = b"""{
  "version=0.0.1": {
    "weight": 80,
    "replicas": 2
  },
  "version=0.0.2": {
    "weight": 20,
    "replicas": 1
  }
}
"""


def with_weight(text: str) -> bytes:
    return f'{{\n  "version=0.0.1": {{\n    "weight": {text}\n  }}\n}}\n'.encode()


def with_replicas(text: str) -> bytes:
    return f'{{\n  "version=0.0.1": {{\n    "weight": 1,\n    "replicas": {text}\n  }}\n}}\n'.encode()


def test_the_dairy_farms_file_is_a_wish():
    wish = deploy.parse(GOOD, "deploy/goat.json")
    assert wish.versions == {
        "0.0.1": VersionWish(weight=80, replicas=2),
        "0.0.2": VersionWish(weight=20, replicas=1),
    }
    assert not wish.maintenance
    assert wish.mark is None


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"version=1": {"weight": 0.1}}',
        b'{"version=1": {"replicas": 0}}',
        b'{"version=1": {"weight": 0}, "maintenance": true}',
        b'{"maintenance": false, "version=1": {"weight": 1e3}}',
        b'{"version=1+a_b-c.d": {"weight": 1, "replicas": 1000}}',
        b'\r\n{"version=1":\r\n{"weight":1}}\r\n\t ',
        b'{"version=1": {"weight": 1e15}}',
        b'{"version=\\u0031": {"weight": 1}}',
    ],
)
def test_unusual_but_good_files(data):
    deploy.parse(data, "f")


def test_a_minus_zero_is_a_zero():
    wish = deploy.parse(b'{"version=1": {"weight": -0.0}, "version=2": {"weight": 1}}', "f")
    assert math.copysign(1, wish.weights[VersionName("1")]) == 1


MANY = {f"version={number}": {"weight": 1} for number in range(VERSIONS_AT_MOST + 1)}

BAD = [
    # not JSON at all
    (b"", 0, "the file is empty"),
    (b" \n\t\n", 0, "the file is empty"),
    (b"{", 1, "the file ends here"),
    (b'{\n  "version=1": {\n    "weight": 1\n', 3, "the file ends here"),
    (b'{\n  "version=1": {"weight": 1}\n\n', 2, "expected `,` or `}`"),
    (b'{"version=1": {"weight": 1}}\n}\n', 2, "after the end"),
    (b'{"version=1": {"weight": 1}}\n{}\n', 2, "after the end"),
    (b'{\n  "version=1": {"weight": 1},\n}\n', 3, "comma stands before the closing `}`"),
    (b'{\n  "version=1": {"weight": 1}\n  "version=2": {"weight": 1}\n}', 3, "expected `,` or `}`"),
    (b'{\n  "version=1" {"weight": 1}\n}', 2, "expected `:`"),
    (b'{\n  "version=1": {"weight" 1}\n}', 2, "expected `:`"),
    (b'{\n  version=1: {"weight": 1}\n}', 2, "key in double quotes"),
    (b"{\n  'version=1': {}\n}", 2, "single quote"),
    (b"{\n  // the old one\n}", 2, "comment"),
    (b'{\n  "version=1": {"weight": 1}, # old\n}', 2, "comment"),
    (b'{\n  "version=1: {"weight": 1}\n}', 2, "expected `:`"),
    (b'{\n  "version=1\n": {"weight": 1}\n}', 2, "not closed"),
    (b'{\n  "version=\\x": {"weight": 1}\n}', 2, "escape"),
    (b'{\n  "version=\x07": {"weight": 1}\n}', 2, "control character"),
    (b'{\n  "version=\\ud800": {"weight": 1}\n}', 2, "surrogate"),
    (b'{\n  "version=1": ,\n}', 2, "expected a value"),
    (b'{\n\n  "version=1": {"weight": 1},,\n}', 3, "key in double quotes"),
    ('{\n\u00a0 "version=1": {"weight": 1}\n}'.encode(), 2, "there is '\\xa0'"),
    (b"\x0b", 1, "there is '\\x0b'"),
    (b"<<<<<<< HEAD\n{}\n", 1, "expected a value"),
    (b'{\n<<<<<<< HEAD\n  "version=1": {"weight": 1}\n}', 2, "key in double quotes"),
    # not text
    (b'\xef\xbb\xbf{"version=1": {"weight": 1}}', 1, "byte order mark"),
    ('{"version=1": {"weight": 1}}'.encode("utf-16"), 1, "byte order mark"),
    (b'{\n  "version=\xff": {"weight": 1}\n}', 2, "not UTF-8"),
    (b'{\n  "version=1": {"weight": 1}\n}\n\0', 4, "NUL"),
    (b" " * (1 << 20) + b"{}", 0, "is the most"),
    (b'{"a":"' + b"x" * 10_000_000 + b'"}', 0, "is the most"),
    (b"[" * 100_000, 1, "nested too deep"),
    (b'{"a":' * 50, 1, "nested too deep"),
    (b"[\n" + b"1,\n" * 2000 + b"1]", 1001, "more than 1000 values"),
    # JSON, but not an object
    (b"[]", 1, "has to be an object, not a list"),
    (b"null", 1, "not null"),
    (b"\n\n80", 3, "not the number 80"),
    (b'"goat"', 1, "not the text `goat`"),
    (b"true", 1, "not true"),
    # keys
    (
        b'{\n  "version=1": {"weight": 1},\n  "version=1": {"weight": 2}\n}',
        3,
        "stands twice, first on line 2",
    ),
    (b'{\n "version=1": {\n "weight": 1,\n "weight": 2\n}}', 4, "stands twice, first on line 3"),
    (b'{\n "maintenance": true,\n "maintenance": true}', 3, "stands twice"),
    (b'{\n "version=1": {"weight": 1},\n "version=\\u0031": {"weight": 1}}', 3, "stands twice"),
    (b'{\n\n  "verison=0.0.1": {"weight": 1}\n}', 3, "did you mean `version=0.0.1`?"),
    (b'{\n  "0.0.1": {"weight": 1}\n}', 2, "did you mean `version=0.0.1`?"),
    (b'{\n  "maintainance": true\n}', 2, "did you mean `maintenance`?"),
    (b'{\n  "strategy": "canary"\n}', 2, "unknown key `strategy`"),
    (b'{\n  "version=1": {\n    "weigth": 1\n  }\n}', 3, "did you mean `weight`?"),
    (b'{\n  "version=1": {\n    "weight": 1,\n    "replica": 1\n  }\n}', 4, "did you mean `replicas`?"),
    (b'{\n  "version=1": {"weight": 1, "": 1}\n}', 2, "unknown key ``"),
    (b'{\n  "version=": {"weight": 1}\n}', 2, "is not a version"),
    (b'{\n  "version=0 1": {"weight": 1}\n}', 2, "is not a version"),
    (b'{\n  "version=../1": {"weight": 1}\n}', 2, "is not a version"),
    (b'{\n  "version=1/weight": {"weight": 1}\n}', 2, "is not a version"),
    (b'{\n  "version=1\\n": {"weight": 1}\n}', 2, "is not a version"),
    ('{\n  "version=Ä": {"weight": 1}\n}'.encode(), 2, "is not a version"),
    (b'{\n  "version=' + b"1" * 129 + b'": {"weight": 1}\n}', 2, "is not a version"),
    # what stands under a version
    (b'{\n  "version=1": 80\n}', 2, "not the number 80"),
    (b'{\n  "version=1":\n    null\n}', 3, "not null"),
    (b'{\n  "version=1": []\n}', 2, "not a list"),
    (b'{\n  "version=1": {}\n}', 2, "neither a weight nor replicas"),
    # weights
    (with_weight("-1"), 3, "a number from 0 up, not -1"),
    (with_weight("-0.001"), 3, "a number from 0 up"),
    (with_weight("NaN"), 3, "`NaN` is not a JSON value"),
    (with_weight("nan"), 3, "`nan` is not a JSON value"),
    (with_weight("Infinity"), 3, "`Infinity` is not a JSON value"),
    (with_weight("-Infinity"), 3, "`-Infinity` is not a JSON value"),
    (with_weight("1e999"), 3, "too large for a number"),
    (with_weight("-1e999"), 3, "too large for a number"),
    (with_weight("1e16"), 3, "is the most"),
    (with_weight("9" * 39), 3, "is the most"),
    (with_weight("9" * 5000), 3, "more than 40 characters"),
    (with_weight('"80"'), 3, "not the text `80`"),
    (with_weight("true"), 3, "not true"),
    (with_weight("null"), 3, "not null"),
    (with_weight("[80]"), 3, "not a list"),
    (with_weight("{}"), 3, "not an object"),
    (with_weight("080"), 3, "`080` is not a JSON value"),
    (with_weight("+80"), 3, "`+80` is not a JSON value"),
    (with_weight(".5"), 3, "`.5` is not a JSON value"),
    (with_weight("5."), 3, "`5.` is not a JSON value"),
    (with_weight("0x50"), 3, "`0x50` is not a JSON value"),
    (with_weight("80%"), 3, "expected `,` or `}`"),
    (with_weight("80,5"), 3, "key in double quotes"),
    (with_weight("True"), 3, "`True` is not a JSON value"),
    (with_weight("0"), 3, "all weights are zero"),
    (with_weight("-0"), 3, "all weights are zero"),
    (
        b'{\n"version=1": {"weight": 0},\n"version=2": {"replicas": 1},\n"maintenance": false}',
        2,
        "all weights are zero",
    ),
    # replicas
    (with_replicas("-1"), 4, "0 to 1000, not -1"),
    (with_replicas("1001"), 4, "0 to 1000, not 1001"),
    (with_replicas("2.0"), 4, "a whole number, not the number 2.0"),
    (with_replicas('"2"'), 4, "a whole number, not the text `2`"),
    (with_replicas("true"), 4, "a whole number, not true"),
    (with_replicas("null"), 4, "a whole number, not null"),
    # maintenance
    (b'{\n  "maintenance": "true"\n}', 2, "true or false, not the text `true`"),
    (b'{\n  "maintenance":\n 1\n}', 3, "true or false, not the number 1"),
    (b'{\n  "maintenance": null\n}', 2, "true or false, not null"),
    # too many
    (json.dumps(MANY, indent=1).encode(), 3 * VERSIONS_AT_MOST + 2, "more than 24 versions"),
]


@pytest.mark.parametrize(("data", "line", "reason"), BAD)
def test_a_bad_file_is_refused_with_its_line_and_the_reason(data, line, reason):
    with pytest.raises(InputRefused) as caught:
        deploy.parse(data, "deploy/goat.json")
    assert reason in caught.value.reason
    assert (caught.value.file, caught.value.line) == ("deploy/goat.json", line)
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 300


def test_the_table_of_bad_files_is_a_long_one():
    assert len(BAD) >= 60


weights = st.one_of(
    st.none(), st.integers(0, 10**15), st.floats(0, 1e15, allow_nan=False, allow_infinity=False)
)
versions = st.from_regex(r"[A-Za-z0-9._+-]{1,20}", fullmatch=True)
wishes = st.dictionaries(versions, st.tuples(weights, st.one_of(st.none(), st.integers(0, 1000))), max_size=8)


def refused(data: bytes) -> InputRefused | None:
    try:
        deploy.parse(data, "f")
    except InputRefused as error:
        return error
    return None


def as_file(wish: dict) -> dict:
    content: dict = {"maintenance": True}
    for version, (weight, replicas) in wish.items():
        fields = {"weight": weight, "replicas": replicas}
        fields = {name: value for name, value in fields.items() if value is not None}
        if fields:
            content[f"version={version}"] = fields
    return content


@given(wishes, st.sampled_from([None, 0, 1, 4]))
def test_what_json_writes_is_read_as_it_was_meant(wish, indent):
    content = as_file(wish)
    read = deploy.parse(json.dumps(content, indent=indent).encode(), "f")
    expected = {
        f"version={version}": {"weight": fields.weight, "replicas": fields.replicas}
        for version, fields in read.versions.items()
    }
    expected = {key: {n: v for n, v in fields.items() if v is not None} for key, fields in expected.items()}
    assert {"maintenance": True} | expected == content


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode())))
def test_any_bytes_are_a_wish_or_are_refused(data):
    refusal = refused(data)
    assert refusal is None or 0 <= refusal.line <= data.count(b"\n") + 1


@given(st.data())
def test_a_good_file_with_a_wound_is_a_wish_or_is_refused(data):
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, len(GOOD)))
    wounded = GOOD[:start] + data.draw(st.binary(max_size=6)) + GOOD[end:]
    refusal = refused(wounded)
    if refusal:
        assert 0 <= refusal.line <= wounded.count(b"\n") + 1
    else:
        json.loads(wounded)  # never more lenient than JSON itself
        weights = deploy.parse(wounded, "f").weights.values()
        assert all(weight >= 0 and math.isfinite(weight) for weight in weights)


def test_changed_weights_keep_everything_else():
    changed = deploy.change_weights(
        b'{"version=0.0.2":{"replicas":1,"weight":50},"version=0.0.1":{"weight":50.0,"replicas":2},"version=3":{"replicas":1}}',
        {VersionName("0.0.1"): 33.5, VersionName("0.0.2"): 66.0},
        "deploy/goat.json",
    )
    assert changed.decode() == (
        '{\n  "version=0.0.2": {\n    "replicas": 1,\n    "weight": 66\n  },\n'
        '  "version=0.0.1": {\n    "weight": 33.5,\n    "replicas": 2\n  },\n'
        '  "version=3": {\n    "replicas": 1\n  }\n}\n'
    )


def test_unchanged_weights_keep_the_templates_text():
    assert deploy.change_weights(GOOD, {VersionName("0.0.1"): 80.0}, "f") == GOOD


def test_a_version_without_a_line_is_not_found():
    with pytest.raises(NotFound) as caught:
        deploy.change_weights(GOOD, {VersionName("0.0.3"): 1}, "deploy/goat.json")
    assert "0.0.1, 0.0.2" in caught.value.message
    assert '"version=0.0.3": {"weight": 0, "replicas": 1}' in caught.value.remedy
    assert "commit" in caught.value.remedy


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, 1e16])
def test_a_bad_new_weight_is_refused(weight):
    with pytest.raises(InputRefused):
        deploy.change_weights(GOOD, {VersionName("0.0.1"): weight}, "f")


def test_weights_that_leave_nobody_are_refused():
    with pytest.raises(InputRefused, match="all weights are zero"):
        deploy.change_weights(GOOD, {VersionName("0.0.1"): 0, VersionName("0.0.2"): 0}, "f")


@given(wishes.filter(lambda wish: any(w for w, _ in wish.values())), st.data())
def test_changed_weights_are_read_back(wish, data):
    content = as_file(wish)
    known = [key.removeprefix("version=") for key in content if key != "maintenance"]
    change = data.draw(
        st.dictionaries(st.sampled_from(known), st.floats(0, 1e15, allow_nan=False), max_size=3)
    )
    before = deploy.parse(json.dumps(content).encode(), "f")
    after = deploy.parse(deploy.change_weights(json.dumps(content).encode(), change, "f"), "f")
    for version, fields in before.versions.items():
        assert after.versions[version].replicas == fields.replicas
        assert after.versions[version].weight == change.get(version, fields.weight)
    assert list(after.versions) == list(before.versions)


def test_a_weight_that_is_too_large_to_write_is_named_as_that():
    with pytest.raises(InputRefused, match=r"^a weight of 1e\+300 is too large; 1e\+15 is the most$"):
        deploy.change_weights(GOOD, {VersionName("0.0.1"): 1e300}, "deploy/goat.json")


def test_a_file_that_cannot_be_changed_as_it_is_says_what_to_do_first():
    with pytest.raises(InputRefused) as caught:
        deploy.change_weights(b"", {VersionName("0.0.1"): 1}, "deploy/goat.json")
    assert caught.value.message == "deploy/goat.json: the file is empty"
    assert caught.value.remedy == "mend deploy/goat.json and commit; its weights can be changed then"
