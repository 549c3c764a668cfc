"""The text of a policy, in the two forms that Consul takes: its HCL blocks, and the same as JSON. Pure.

    key_prefix "shop/" { policy = "write" }
    operator = "read"

A rule of a kind that is not known here is refused: one that is passed over protects nothing and says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from milkrun.registry.access.rules import SINGLE, Level, Resource, Rule
from milkrun.registry.refusal import Refused

TEXT_AT_MOST = 64 * 1024
RULES_AT_MOST = 1024
_LEVELS = {"deny": Level.DENY, "read": Level.READ, "write": Level.WRITE}
_PREFIX = "_prefix"
_TOKEN = re.compile(
    r'(?P<blank>\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<text>"(?:[^"\\\x00-\x1f]|\\["\\nrt])*")'
    r"|(?P<word>[a-z_]+)|(?P<sign>[{}=])",
    re.DOTALL,
)


def parsed(text: str) -> list[Rule]:
    """The rules of the text. Raises Refused (400) with the line for one that cannot be read."""
    if len(text) > TEXT_AT_MOST:
        raise _refused(f"more than {TEXT_AT_MOST} characters")
    rules = list(_of_json(text) if text.lstrip().startswith("{") else _of_blocks(text))
    if len(rules) > RULES_AT_MOST:
        raise _refused(f"more than {RULES_AT_MOST} rules")
    return rules


def _of_blocks(text: str) -> Iterator[Rule]:
    reader = _Tokens(text)
    while (word := reader.next("word", "end")) != "":
        if reader.peek() == "=":
            reader.next("sign")
            yield _single(word, reader.string(), reader.where)
            continue
        name = reader.string()
        if reader.peek() == "=":
            reader.next("sign")
        yield _named(word, name, reader.block(), reader.where)


def _of_json(text: str) -> Iterator[Rule]:
    try:
        whole = msgspec.json.decode(text, type=dict[str, str | dict[str, dict[str, str]]])
        json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise _refused(str(error) or "too deep") from error
    for word, said in whole.items():
        if isinstance(said, str):
            yield _single(word, said, "")
        else:
            for name, block in said.items():
                yield _named(word, name, block, "")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; of two rules on the same name a decoder keeps only the last, and that may be the weaker one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"{twice[:40]!r} is there twice")
    return found


def _single(word: str, level: str, where: str) -> Rule:
    if word not in SINGLE:
        raise _refused(
            f"{word} = ... is no rule; without a name there are: {', '.join(sorted(SINGLE))}", where
        )
    return Rule(Resource(word), "", _level(word, level, where), prefix=True)


def _named(word: str, name: str, block: dict[str, str], where: str) -> Rule:
    kind = word.removesuffix(_PREFIX)
    if kind not in set(Resource) - SINGLE:
        kinds = ", ".join(sorted(set(Resource) - SINGLE))
        raise _refused(
            f"{word[:40]!r} is no kind of rule; there are: {kinds}, each also with {_PREFIX}", where
        )
    if unknown := block.keys() - {"policy", "intentions"}:
        raise _refused(f"a rule has no {', '.join(sorted(unknown))[:80]}", where)
    if "policy" not in block:
        raise _refused(f'{word} "{name[:80]}" has no policy', where)
    return Rule(Resource(kind), name, _level(word, block["policy"], where), prefix=word.endswith(_PREFIX))


def _level(word: str, text: str, where: str) -> Level:
    if text not in _LEVELS:
        raise _refused(f"{word} cannot be {text[:40]!r}: read, write or deny", where)
    return _LEVELS[text]


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    @property
    def where(self) -> str:
        return f"line {self._text.count(chr(10), 0, self._place) + 1}: "

    def _found(self) -> tuple[str, str, int]:
        place = self._place
        while True:
            found = _TOKEN.match(self._text, place)
            if found is None:
                if place < len(self._text):
                    raise _refused(f"{self._text[place : place + 20]!r} is not understood", self.where)
                return "end", "", place
            place = found.end()
            if found.lastgroup != "blank":
                return str(found.lastgroup), found[0], place

    def peek(self) -> str:
        return self._found()[1]

    def next(self, *kinds: str) -> str:
        kind, token, place = self._found()
        if kind not in kinds:
            raise _refused(f"{token or 'the end'} comes where a {kinds[0]} should", self.where)
        self._place = place
        return token

    def string(self) -> str:
        return str(msgspec.json.decode(self.next("text")))

    def sign(self, sign: str) -> None:
        if self.next("sign") != sign:
            raise _refused(f"there should be a {sign}", self.where)

    def block(self) -> dict[str, str]:
        self.sign("{")
        block: dict[str, str] = {}
        while self.peek() != "}":
            word = self.next("word")
            self.sign("=")
            block[word] = self.string()
        self.sign("}")
        return block


def _refused(why: str, where: str = "") -> Refused:
    return Refused(400, f"Invalid Policy: failed to parse the rules: {where}{why}")
