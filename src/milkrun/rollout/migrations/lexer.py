"""SQL text as tokens with their places, by psql's lexical rules (PostgreSQL's psqlscan.l, scan.l). Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

import msgspec

from milkrun.errors import InputRefused


class Kind(enum.Enum):
    """What a token is."""

    WORD = "word"
    NUMBER = "number"
    STRING = "string"
    QUOTED = "quoted identifier"
    PARAMETER = "parameter"
    SYMBOL = "symbol"
    COMMENT = "comment"


class Token(msgspec.Struct, frozen=True):
    """A piece of the text, from `start` on, in `line` (from 1)."""

    kind: Kind
    text: str
    start: int
    line: int

    @property
    def end(self) -> int:
        """Where the text goes on."""
        return self.start + len(self.text)

    @property
    def key(self) -> str:
        """A word as the language knows it: in small letters; anything else as it stands."""
        return self.text.lower() if self.kind is Kind.WORD else self.text


# A literal goes on after a line break, with the rules of its first part: 'a' -- and\n 'b' is one string.
_GOES_ON = r"'(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*'"
_STRING = re.compile(rf"(?:[bBxXnN]|[uU]&)?'(?:{_GOES_ON}|''|[^'])*+(?P<end>')?")
_ESCAPED = re.compile(rf"[eE]'(?:{_GOES_ON}|''|\\[\s\S]|[^'\\])*+(?P<end>')?")
_QUOTED = re.compile(r'(?:[uU]&)?"(?:""|[^"])*+(?P<end>")?')
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")
_WORD = re.compile(r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*")
_NUMBER = re.compile(r"\d[\w.]*|\.\d\w*")
_PARAMETER = re.compile(r":[A-Za-z_]\w*")
_BEFORE_PARAMETER = ("", "(", ",", "=", "<", ">", "+", "-", "*", "/", "%", "|")
_SPACE = re.compile(r"[ \t\n\r\f\v]+")
_LINE_COMMENT = re.compile(r"--[^\n\r]*")
_COMMENT_EDGE = re.compile(r"/\*|\*/")

_CLOSED = ((_ESCAPED, Kind.STRING), (_STRING, Kind.STRING), (_QUOTED, Kind.QUOTED))
_OPEN = (
    (_LINE_COMMENT, Kind.COMMENT),
    (_WORD, Kind.WORD),
    (_NUMBER, Kind.NUMBER),
    (_PARAMETER, Kind.PARAMETER),
)


def tokens(text: str) -> Iterator[Token]:
    """All of the text but its spaces. Raises InputRefused with the line where something is opened and not closed."""
    at, line, before = 0, 1, ""
    while at < len(text):
        space = _SPACE.match(text, at)
        if space:
            line += text.count("\n", at, space.end())
            at = space.end()
            before = ""
            continue
        kind, end = _next(text, at, line, before)
        found = Token(kind, text[at:end], at, line)
        yield found
        line += found.text.count("\n")
        at, before = end, found.text


def _next(text: str, at: int, line: int, before: str) -> tuple[Kind, int]:
    if text.startswith("/*", at):
        return Kind.COMMENT, _comment_end(text, at, line)
    for pattern, kind in _CLOSED:
        if match := pattern.match(text, at):
            if not match["end"]:
                raise InputRefused(f"a {kind.value} begins here and does not end", line=line)
            return kind, match.end()
    if tag := _DOLLAR.match(text, at):
        return Kind.STRING, _dollar_end(text, tag, line)
    for pattern, kind in _OPEN:
        # `a::int` is a cast and `x[1:n]` a slice: a parameter follows a space or an operator.
        if kind is Kind.PARAMETER and before not in _BEFORE_PARAMETER:
            continue
        if match := pattern.match(text, at):
            return kind, match.end()
    if text[at] == "\\":
        raise InputRefused("psql's own commands have no place in a migration", line=line)
    return Kind.SYMBOL, at + 1


def _dollar_end(text: str, tag: re.Match[str], line: int) -> int:
    end = text.find(tag[0], tag.end())
    if end < 0:
        raise InputRefused(f"a text begins here with {tag[0]} and does not end", line=line)
    return end + len(tag[0])


def _comment_end(text: str, at: int, line: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, at):
        depth += 1 if edge[0] == "/*" else -1
        if not depth:
            return edge.end()
    raise InputRefused("a comment begins here and does not end", line=line)
