import tomllib

from hypothesis import given
from hypothesis import strategies as st

from milkrun.settings import toml_lines

TEXT = '''# a comment with [brackets] and "quotes"
name = "x" # name = 2
"a b".c = [
  1, # one
  "]", [ "}",
    3 ],
]

[t]
long = """
[not.a.table]
no = "key" \\""" still
"""
raw = \'\'\'
[nor.this]
\'\'\'
when = 1979-05-27 07:32:00
inline = { x = 1, "y z" = { w = "}" }, l = [ { q = 1 } ] }
[t.deeper."d.q"]
k = 'it'

[[items]]
a = 1
[[items]]
a = 2
[items.sub]
b = 3
'''


def test_each_key_and_item_has_its_line():
    tomllib.loads(TEXT)
    found = toml_lines.lines(TEXT)
    by_line = dict(enumerate(TEXT.splitlines(), start=1))
    assert found["name",] == 2
    assert found["a b", "c"] == found["a b",] == 3
    assert [found["a b", "c", number] for number in (0, 1, 2)] == [4, 5, 5]
    assert [found["a b", "c", 2, number] for number in (0, 1)] == [5, 6]
    assert by_line[found["t", "long"]].startswith("long")
    assert by_line[found["t", "raw"]].startswith("raw")
    assert by_line[found["t", "when"]].startswith("when")
    assert by_line[found["t", "inline", "y z", "w"]].startswith("inline")
    assert by_line[found["t", "inline", "l", 0, "q"]].startswith("inline")
    assert by_line[found["t", "deeper", "d.q", "k"]].startswith("k =")
    assert by_line[found["items", 0, "a"]] == "a = 1"
    assert by_line[found["items", 1, "a"]] == "a = 2"
    assert by_line[found["items", 1, "sub", "b"]] == "b = 3"
    assert ("nor",) not in found
    assert ("not",) not in found


def test_the_nearest_holder_stands_in_for_what_is_missing():
    found = toml_lines.lines("\n[routers.lb]\nlisten = 1\n")
    assert toml_lines.nearest(found, ("routers", "lb", "stats")) == 2
    assert toml_lines.nearest(found, ("name",)) == 0


keys = st.text(min_size=1, max_size=4).map(
    lambda text: (
        '"' + text.encode("unicode_escape").decode().replace('"', '\\"').replace("\\x", "\\u00") + '"'
    )
)
bare = st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True)
scalars = st.sampled_from(
    ["1", "-1.5", "true", '"a#b]"', "'}'", '"""x\ny"""', "'''\n'''", "1979-05-27", "inf"]
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + " ,\n".join(items) + " # end\n]"),
        st.dictionaries(bare, inner.filter(lambda v: "\n" not in v), max_size=3).map(
            lambda items: "{ " + ", ".join(f"{k} = {v}" for k, v in items.items()) + " }"
        ),
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.one_of(keys, bare), values), max_size=6, unique_by=lambda pair: pair[0]))
def test_every_top_key_of_any_text_is_found_on_its_line(pairs):
    text, expected = "", {}
    for key, value in pairs:
        line = text.count("\n") + 1
        text += f"{key} = {value} # {key}\n\n"
        try:
            parsed = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return  # two spellings of one key
        for name in parsed:
            expected.setdefault((name,), line)
    found = toml_lines.lines(text)
    assert {path: line for path, line in found.items() if len(path) == 1} == expected


@given(st.text(alphabet="ab=.[]{}\"'#,\n \\1", max_size=40))
def test_any_text_that_is_toml_is_scanned_to_its_end(text):
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert {path[0] for path in toml_lines.lines(text)} == set(parsed)


def test_a_text_that_is_not_toml_is_scanned_to_its_end_all_the_same():
    assert toml_lines.lines("a = [1, [2")["a", 1] == 1
    assert toml_lines.lines("a = { b = { c = 1")["a", "b", "c"] == 1
