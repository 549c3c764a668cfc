"""A migration's script as statements with their lines, and what its comments ask of milkrun. Pure.

`-- milkrun: NAME key=value key="some words"` is a directive: `backfill` and `allow` belong to the statement below
them, `sync` stands for the statements that keep two columns equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.lexer import Kind, Token, tokens
from milkrun.settings.text import did_you_mean, plain_text, shown

_DIRECTIVE = re.compile(r"--\s*milkrun:\s*(?P<name>[a-z-]+)(?P<rest>.*)", re.DOTALL)
_PAIR = re.compile(r'\s+([a-z]+)=("(?:[^"]|"")*"|[^\s"]+)')
_KEYS = {
    "backfill": ({"table", "key"}, {"table", "key"}),
    "allow": ({"rule", "because"}, {"rule", "because"}),
    "sync": ({"table", "old", "new"}, {"table", "old", "new", "forward", "backward"}),
}
"""Each directive: the keys that it needs, and all that it knows."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
_CLOSED_BY = {"(": ")", "[": "]"}
_TABLE = re.compile(rf"(?:{_NAME.pattern}\.)?{_NAME.pattern}")


class Directive(msgspec.Struct, frozen=True):
    """What a comment asks for, in `line`."""

    name: str
    values: dict[str, str]
    line: int


class Statement(msgspec.Struct, frozen=True):
    """One statement without its semicolon. `line` is where it begins, `directives` stand above it."""

    text: str
    line: int
    tokens: tuple[Token, ...]
    directives: tuple[Directive, ...] = ()

    @property
    def keys(self) -> list[str]:
        """Its words in small letters, with symbols, names and strings as they stand; no comments."""
        return [token.key for token in self.tokens]

    def asked(self, name: str) -> list[Directive]:
        """The directives of that name above it."""
        return [each for each in self.directives if each.name == name]


Item: TypeAlias = Statement | Directive


class Script(msgspec.Struct, frozen=True):
    """A file's items in their order."""

    file: str
    items: tuple[Item, ...]

    @property
    def statements(self) -> list[Statement]:
        """Only the statements that it writes out."""
        return [item for item in self.items if isinstance(item, Statement)]

    @property
    def syncs(self) -> list[Directive]:
        """The pairs of columns that it asks to keep equal."""
        return [item for item in self.items if isinstance(item, Directive)]


def parse(data: bytes, file: str) -> Script:
    """The script that a file's bytes are; raises InputRefused with the file and the line."""
    text = plain_text(data, file)
    try:
        return Script(file, tuple(_items(text)))
    except InputRefused as error:
        raise InputRefused(error.reason, file=file, line=error.line, remedy=error.remedy) from error


def _items(text: str) -> Iterator[Item]:
    above: list[Directive] = []
    for part in _parts(tokens(text)):
        own = [token for token in part if token.kind is not Kind.COMMENT]
        inside = own[0].start if own else len(text)
        for token in part:
            found = _directive(token)
            if not found:
                continue
            if token.start > inside:
                raise InputRefused("a directive stands above a statement, not in it", line=token.line)
            if found.name == "sync":
                yield found
            else:
                above.append(found)
        if own:
            end = own[-1].end
            yield Statement(text[inside:end], own[0].line, tuple(own), tuple(above))
            above = []
    if above:
        raise InputRefused(f"there is no statement below this `{above[0].name}`", line=above[0].line)


def _parts(found: Iterator[Token]) -> Iterator[list[Token]]:
    """The tokens of each statement, without the semicolons that end them."""
    part: list[Token] = []
    body = _Body()
    for token in found:
        if token.text == ";" and not body.open:
            yield part
            part, body = [], _Body()
        else:
            part.append(token)
            body.saw(token)
    yield part


class _Body:
    """Whether a semicolon is inside a statement: in parentheses, or in a function's BEGIN ATOMIC ... END."""

    def __init__(self) -> None:
        self._depth, self._blocks = 0, 0
        self._begins: list[str] = []

    @property
    def open(self) -> bool:
        return self._depth > 0 or self._blocks > 0

    def saw(self, token: Token) -> None:
        if token.kind is Kind.SYMBOL and token.text in "()":
            self._depth = max(0, self._depth + (1 if token.text == "(" else -1))
        if token.kind is not Kind.WORD:
            return
        if len(self._begins) < 4:
            self._begins.append(token.key)
        if not self._depth and self._routine():
            if token.key == "begin" or (token.key == "case" and self._blocks):
                self._blocks += 1
            elif token.key == "end" and self._blocks:
                self._blocks -= 1

    def _routine(self) -> bool:
        words = [word for word in self._begins if word not in ("or", "replace")]
        return words[:1] == ["create"] and words[1:2] in (["function"], ["procedure"])


def _directive(token: Token) -> Directive | None:
    match = _DIRECTIVE.fullmatch(token.text) if token.kind is Kind.COMMENT else None
    if not match:
        return None
    name, rest = match["name"], match["rest"].rstrip()
    if name not in _KEYS:
        raise InputRefused(f"unknown directive {shown(name)}{did_you_mean(name, _KEYS)}", line=token.line)
    values: dict[str, str] = {}
    at = 0
    while pair := _PAIR.match(rest, at):
        key, value = pair[1], pair[2]
        if key in values:
            raise InputRefused(f"`{key}` stands there twice", line=token.line)
        values[key] = value[1:-1].replace('""', '"') if value.startswith('"') else value
        at = pair.end()
    if at < len(rest):
        raise InputRefused(
            f'cannot read {shown(rest[at:].strip())}: write key=value or key="some words"', line=token.line
        )
    needed, known = _KEYS[name]
    _judge(name, values, needed, known, token.line)
    return Directive(name, values, token.line)


def _judge(name: str, values: dict[str, str], needed: set[str], known: set[str], line: int) -> None:
    for key in sorted(needed - set(values)):
        raise InputRefused(f"`{name}` needs `{key}=`", line=line)
    for key in sorted(set(values) - known):
        raise InputRefused(f"`{name}` has no key {shown(key)}{did_you_mean(key, known)}", line=line)
    for key in ("table", "key", "old", "new"):
        pattern = _TABLE if key == "table" else _NAME
        listed = columns(values.get(key, "")) if key in ("old", "new") else [values.get(key, "")]
        if key in values and not all(pattern.fullmatch(each) for each in listed):
            raise InputRefused(f"`{key}` has to be a plain name, not {shown(values[key])}", line=line)
    if name == "sync":
        _judge_sync(values, line)


def _judge_sync(values: dict[str, str], line: int) -> None:
    both = [each.lower() for key in ("old", "new") for each in columns(values[key])]
    if len(set(both)) < len(both):
        raise InputRefused("`sync` has each column once, in `old` or in `new`", line=line)
    for key, source, target in (("forward", "old", "new"), ("backward", "new", "old")):
        found, wanted = len(expressions(values.get(key, values[source]), line)), len(columns(values[target]))
        if found != wanted:
            reason = (
                f"`{key}` needs {wanted} expressions with commas between, one for each of {values[target]}"
            )
            raise InputRefused(f"{reason}, not {found}", line=line)


def columns(text: str) -> list[str]:
    """The names that stand in `old` or `new` of a `sync`, which has commas between them."""
    return text.split(",")


def expressions(text: str, line: int) -> list[str]:
    """The texts between the outermost commas, each of which can only be read as one expression in parentheses."""
    found, at = [], 0
    open_: list[str] = []
    try:
        pieces = [*tokens(text)]
    except InputRefused as error:
        raise InputRefused(error.reason, line=line) from error
    for token in pieces:
        if token.kind is Kind.COMMENT or token.text == ";":
            raise _no_expression(line)
        if token.kind is not Kind.SYMBOL:
            continue
        if token.text in _CLOSED_BY:
            open_.append(_CLOSED_BY[token.text])
        elif token.text in _CLOSED_BY.values() and (not open_ or open_.pop() != token.text):
            raise _no_expression(line)
        elif token.text == "," and not open_:
            found.append(text[at : token.start].strip())
            at = token.end
    found.append(text[at:].strip())
    if open_ or not all(found):
        raise _no_expression(line)
    return found


def _no_expression(line: int) -> InputRefused:
    return InputRefused("`forward` and `backward` have one expression for each column", line=line)


def names(statement: Statement) -> Sequence[str]:
    """The parameters in it, in their order, without the colon."""
    return [token.text[1:] for token in statement.tokens if token.kind is Kind.PARAMETER]
