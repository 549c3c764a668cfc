import msgspec
from hypothesis import given
from hypothesis import strategies as st

from milkrun.load.labels import Label, read

BOTTLE = {
    "farmer": {"service": "farmer", "version": "0.0.1", "instance": "farmer-1"},
    "goat": {"service": "goat", "version": "0.0.2", "instance": "goat-2"},
    "request": "load-ab-7",
}


def test_a_bottle_names_its_request_and_everybody_who_had_a_part_in_it():
    request, labels = read(msgspec.json.encode(BOTTLE))
    assert request == "load-ab-7"
    assert labels == [Label("farmer", "0.0.1", "farmer-1"), Label("goat", "0.0.2", "goat-2")]


def test_labels_are_found_at_any_depth_and_counted_once_an_answer():
    goat = {"service": "goat", "version": "1"}
    _, labels = read(
        msgspec.json.encode({"service": "farm", "version": "2", "herd": [[goat], {"also": goat}]})
    )
    assert labels == [Label("farm", "2", ""), Label("goat", "1", "")]


def test_what_is_no_text_for_a_terminal_is_no_label():
    for bad in ("\x1b[2J", "a\nb", "x" * 201, "", 3, None, ["goat"]):
        assert read(msgspec.json.encode({"service": bad, "version": "1"})) == ("", [])
        assert read(msgspec.json.encode({"request": bad})) == ("", [])


def test_a_request_named_deeper_down_is_not_the_answers_own():
    assert read(b'{"goat": {"request": "load-x-1"}}') == ("", [])


def test_a_huge_answer_is_looked_at_in_part():
    herd = [{"service": "goat", "version": str(number)} for number in range(5000)]
    assert len(read(msgspec.json.encode(herd))[1]) == 999  # the list itself is one of the thousand


@given(
    st.binary()
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b'"\xff"', b"\xef\xbb\xbf{}", b'"\\ud800"'])
)
def test_any_bytes_are_read_without_an_error(body):
    request, labels = read(body)
    assert isinstance(request, str)
    assert isinstance(labels, list)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["service", "version", "request", "goat"]), inner, max_size=4)
    ),
)


@given(json)
def test_every_label_has_a_service_and_a_version(document):
    for label in read(msgspec.json.encode(document))[1]:
        assert label.service
        assert label.version
        assert (label.service + label.version + label.instance).isprintable()
