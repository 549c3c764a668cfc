"""JSON text as a tree in which every key and value knows its line. Stricter than most readers, and bounded.

Written by hand because a refusal has to name the line, and a key that stands twice has to be seen: no reader
that we could use tells both.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn, TypeAlias

import msgspec

from milkrun.errors import InputRefused
from milkrun.settings.text import plain_text, shown

DEPTH_AT_MOST = 8
VALUES_AT_MOST = 1000
NUMBER_CHARACTERS_AT_MOST = 40

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING_INSIDE = re.compile(r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")
_WORDS = {"true": True, "false": False, "null": None}

Scalar: TypeAlias = str | int | float | bool | None


class Node(msgspec.Struct, frozen=True):
    """A value and the line it begins on: a scalar, a list of nodes, or members by key in their order."""

    line: int
    value: Scalar | list[Node] | dict[str, Member]

    def plain(self) -> object:
        """The value as `json.loads` would give it."""
        match self.value:
            case dict():
                return {key: member.node.plain() for key, member in self.value.items()}
            case list():
                return [node.plain() for node in self.value]
            case _:
                return self.value


class Member(msgspec.Struct, frozen=True):
    """What stands under a key of an object. `line` is the key's own."""

    line: int
    node: Node


def read(data: bytes, file: str) -> Node:
    """The tree of a JSON file; raises InputRefused with the line of what is wrong."""
    reader = _Reader(plain_text(data, file), file)
    return reader.document()


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._line = 1
        self._counted = 0
        self._values = 0

    def document(self) -> Node:
        self._blank()
        if self._at == len(self._text):
            raise InputRefused("the file is empty", file=self._file)
        node = self._value(1)
        self._blank()
        if self._at < len(self._text):
            self._refuse(f"{self._found()} stands after the end of the JSON value")
        return node

    def _value(self, depth: int) -> Node:
        self._values += 1
        if depth > DEPTH_AT_MOST:
            self._refuse("it is nested too deep")
        if self._values > VALUES_AT_MOST:
            self._refuse(f"it has more than {VALUES_AT_MOST} values")
        line = self._here()
        match self._text[self._at : self._at + 1]:
            case "{":
                return Node(line, self._object(depth))
            case "[":
                return Node(line, self._list(depth))
            case '"':
                return Node(line, self._string())
            case _:
                return Node(line, self._scalar())

    def _object(self, depth: int) -> dict[str, Member]:
        members: dict[str, Member] = {}
        self._at += 1
        self._blank()
        if self._taken("}"):
            return members
        while True:
            if self._peek() != '"':
                self._expected("a key in double quotes")
            line = self._here()
            start = self._at
            key = self._string()
            if key in members:
                self._at = start
                self._refuse(f"the key {shown(key)} stands twice, first on line {members[key].line}")
            self._blank()
            if not self._taken(":"):
                self._expected(f"`:` after {shown(key)}")
            self._blank()
            members[key] = Member(line, self._value(depth + 1))
            if self._ends("}"):
                return members

    def _list(self, depth: int) -> list[Node]:
        nodes: list[Node] = []
        self._at += 1
        self._blank()
        if self._taken("]"):
            return nodes
        while True:
            nodes.append(self._value(depth + 1))
            if self._ends("]"):
                return nodes

    def _ends(self, bracket: str) -> bool:
        """Whether the bracket closes here; else a comma does not, and the next member may follow."""
        self._blank()
        if self._taken(bracket):
            return True
        if not self._taken(","):
            self._expected(f"`,` or `{bracket}`")
        self._blank()
        if self._peek() == bracket:
            self._refuse(f"a comma stands before the closing `{bracket}`")
        return False

    def _string(self) -> str:
        start = self._at
        inside = _STRING_INSIDE.match(self._text, start + 1)
        self._at = inside.end() if inside else start + 1
        match self._peek():
            case '"':
                self._at += 1
            case "\\":
                self._refuse("a string has an escape that JSON does not know")
            case "" | "\n" | "\r":
                self._refuse("a string is not closed on its line")
            case _:
                self._refuse("a string has a control character in it")
        text: str = json.loads(self._text[start : self._at])
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._refuse("a string has half of a surrogate pair in it")
        return text

    def _scalar(self) -> Scalar:
        word = _WORD.match(self._text, self._at)
        if not word:
            self._expected("a value")
        text = word[0]
        if text in _WORDS:
            self._at = word.end()
            return _WORDS[text]
        number = _NUMBER.fullmatch(text)
        if not number:
            self._refuse(f"{shown(text)} is not a JSON value")
        if len(text) > NUMBER_CHARACTERS_AT_MOST:
            self._refuse(f"a number has more than {NUMBER_CHARACTERS_AT_MOST} characters")
        if not math.isfinite(float(text)):
            self._refuse(f"{shown(text)} is too large for a number")
        self._at = word.end()
        return float(text) if number["fraction"] or number["exponent"] else int(text)

    def _expected(self, what: str) -> NoReturn:
        self._refuse(f"expected {what}, but {self._found()}")

    def _found(self) -> str:
        rest = self._text[self._at : self._at + 20]
        if not rest:
            return "the file ends here"
        if rest.startswith(("//", "/*", "#")):
            return "there is a comment, which JSON does not have"
        if rest.startswith("'"):
            return "there is a single quote"
        words = rest.split(maxsplit=1)
        return (
            f"there is {shown(words[0])}" if words and rest.startswith(words[0]) else f"there is {rest[0]!a}"
        )

    def _refuse(self, reason: str) -> NoReturn:
        raise InputRefused(f"not JSON: {reason}", file=self._file, line=self._here())

    def _here(self) -> int:
        end = self._at
        if end >= len(
            self._text
        ):  # the file's end is on its last line, not on the one after its last newline
            end = max(len(self._text.rstrip()), self._counted)
        self._line += self._text.count("\n", self._counted, end)
        self._counted = end
        return self._line

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _taken(self, character: str) -> bool:
        taken = self._peek() == character
        self._at += taken
        return taken

    def _blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
