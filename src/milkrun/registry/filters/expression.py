"""The text of a filter becomes an expression, or a refusal that says where it stopped making sense. Pure.

The grammar, and the words of its errors, are go-bexpr's (0.1, as Consul 1.8.7 has it): where nothing matches,
the furthest place that the parser reached is named with all that could have stood there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from milkrun.registry.refusal import Refused

SIZE_AT_MOST = 8192
DEPTH_AT_MOST = 64

_BLANK = "[ \\t\\r\\n]"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")


class Operator(StrEnum):
    """How a selector is compared; the value is its name in refusals."""

    EQUAL = "Equal"
    NOT_EQUAL = "Not Equal"
    IN = "In"
    NOT_IN = "Not In"
    IS_EMPTY = "Is Empty"
    IS_NOT_EMPTY = "Is Not Empty"
    MATCHES = "Matches"
    NOT_MATCHES = "Not Matches"


class Match(msgspec.Struct, frozen=True):
    """One comparison. `value` is None for the two operators that need none."""

    selector: tuple[str, ...]
    operator: Operator
    value: str | None = None


class Not(msgspec.Struct, frozen=True):
    """Holds when `of` does not."""

    of: Expression


class And(msgspec.Struct, frozen=True):
    """Holds when all of them do."""

    of: tuple[Expression, ...]


class Or(msgspec.Struct, frozen=True):
    """Holds when one of them does."""

    of: tuple[Expression, ...]


Expression = Match | Not | And | Or

_SIGNS = (("==", Operator.EQUAL), ("!=", Operator.NOT_EQUAL))
_AFTER_SELECTOR = (
    (("contains",), Operator.IN),
    (("not", "contains"), Operator.NOT_IN),
    (("matches",), Operator.MATCHES),
    (("not", "matches"), Operator.NOT_MATCHES),
)
_ALONE = ((("is", "empty"), Operator.IS_EMPTY), (("is", "not", "empty"), Operator.IS_NOT_EMPTY))
_AFTER_VALUE = ((("in",), Operator.IN), (("not", "in"), Operator.NOT_IN))


def parse(text: str) -> Expression:
    """The expression. Raises Refused (400) with go-bexpr's words, or ours when it is too large or too deep."""
    if len(text) > SIZE_AT_MOST:
        raise no(f"the filter has {len(text)} characters, the most is {SIZE_AT_MOST}")
    return _Parser(text).whole()


def no(why: str) -> Refused:
    """The refusal of a filter."""
    return Refused(400, f"Failed to create boolean expression evaluator: {why}")


class _Parser:
    """Each method leaves `_at` after what it read and gives it, or leaves `_at` alone and gives None."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._furthest = 0
        self._expected: set[str] = set()
        self._errors: list[str] = []

    def whole(self) -> Expression:
        self._blanks()
        found = self._or(0)
        if found is not None:
            self._blanks()
            if self._at < len(self._text):
                self._miss("EOF")
        if found is None or self._errors or self._at < len(self._text):
            raise no("\n".join(self._errors) or self._no_match())
        return found

    # Expressions

    def _or(self, depth: int) -> Expression | None:
        terms = self._joined("or", lambda: self._and(depth))
        return Or(tuple(terms)) if len(terms) > 1 else terms[0] if terms else None

    def _and(self, depth: int) -> Expression | None:
        terms = self._joined("and", lambda: self._not(depth))
        return And(tuple(terms)) if len(terms) > 1 else terms[0] if terms else None

    def _joined(self, word: str, part: Callable[[], Expression | None]) -> list[Expression]:
        terms: list[Expression] = []
        end = self._at
        while (term := part()) is not None:
            terms.append(term)
            end = self._at
            if not (self._blanks() and self._literal(word) and self._blanks()):
                break
        self._at = end
        return terms

    def _not(self, depth: int) -> Expression | None:
        if depth > DEPTH_AT_MOST:
            raise no(f"the filter is nested more than {DEPTH_AT_MOST} deep")
        start = self._at
        if self._literal("not") and self._blanks():
            inner = self._not(depth + 1)
            if inner is not None:
                return Not(inner)
        self._at = start
        return self._grouping(depth) or self._match()

    def _grouping(self, depth: int) -> Expression | None:
        start = self._at
        if self._literal("("):
            self._blanks()
            inner = self._or(depth + 1)
            if inner is not None:
                self._blanks()
                if self._literal(")"):
                    return inner
                self._wrong("grouping", "Unmatched parentheses")
        self._at = start
        return None

    def _match(self) -> Match | None:
        start = self._at
        selector = self._selector()
        if selector:
            after = self._at
            operator = self._comparison()
            if operator and (value := self._value()) is not None:
                return Match(selector, operator, value)
            self._at = after
            if operator := self._words(_ALONE):
                return Match(selector, operator)
        self._at = start
        value = self._value()
        if value is not None and (operator := self._words(_AFTER_VALUE)) and self._blanks():
            selector = self._selector()
            if selector:
                return Match(selector, operator, value)
            self._wrong("match", "Invalid selector")
        self._at = start
        return None

    def _comparison(self) -> Operator | None:
        start = self._at
        for sign, operator in _SIGNS:
            self._blanks()
            if self._literal(sign):
                self._blanks()
                return operator
            self._at = start
        operator_in_words = self._words(_AFTER_SELECTOR)
        if operator_in_words and self._blanks():
            return operator_in_words
        self._at = start
        return None

    def _words(self, choices: Sequence[tuple[tuple[str, ...], Operator]]) -> Operator | None:
        start = self._at
        for words, operator in choices:
            if all(self._blanks() and self._literal(word) for word in words):
                return operator
            self._at = start
        return None

    # Selectors and values

    def _selector(self) -> tuple[str, ...] | None:
        parts = [self._identifier()]
        while parts[-1] is not None:
            end = self._at
            parts.append(self._identifier() if self._literal(".") else self._index())
        if parts[0] is None:
            return None
        self._at = end
        return tuple(part for part in parts if part is not None)

    def _identifier(self) -> str | None:
        start = self._at
        if not self._one_of(_LETTERS, "[a-zA-Z]"):
            return None
        while self._one_of(_LETTERS | _DIGITS | {"_"}, "[a-zA-Z0-9_]"):
            pass
        return self._text[start : self._at]

    def _index(self) -> str | None:
        start = self._at
        if self._literal("["):
            self._blanks()
            place = self._at
            found = self._string()
            if found is None:
                self._at = place
                self._wrong("index", "Invalid index", start + 1)
            else:
                self._blanks()
                if self._literal("]"):
                    return found
                self._wrong("index", "Unclosed index expression")
        self._at = start
        return None

    def _value(self) -> str | None:
        selector = self._selector()
        if selector:
            return ".".join(selector)
        number = self._number()
        return number if number is not None else self._string()

    def _number(self) -> str | None:
        start = self._at
        self._literal("-")
        if not self._literal("0"):
            if not self._one_of(_DIGITS - {"0"}, "[1-9]"):
                self._at = start
                return None
            while self._one_of(_DIGITS, "[0-9]"):
                pass
        whole = self._at
        if self._literal("."):
            if self._one_of(_DIGITS, "[0-9]"):
                while self._one_of(_DIGITS, "[0-9]"):
                    pass
            else:
                self._at = whole
        end = self._at
        if not (self._blanks() or self._literal(")") or end == len(self._text)):
            self._wrong("number", "Invalid number literal", end)
            self._at = start
            return None
        self._at = end
        return self._text[start:end]

    def _string(self) -> str | None:
        start = self._at
        quote = "`" if self._literal("`") else '"' if self._literal('"') else ""
        if not quote:
            return None
        end = self._text.find(quote, self._at)
        if end < 0:
            self._at = len(self._text)
            self._wrong("string", "Unterminated string literal")
            self._at = start
            return None
        inside = self._text[self._at : end]
        self._at = end + 1
        if quote == "`":
            return inside
        plain = _unquoted(inside)
        if plain is None:
            self._wrong("string", "invalid syntax", start)
        return plain or ""

    # Single signs

    def _blanks(self) -> bool:
        start = self._at
        while self._one_of(frozenset(" \t\r\n"), _BLANK):
            pass
        return self._at > start

    def _literal(self, literal: str) -> bool:
        if self._text.startswith(literal, self._at):
            self._at += len(literal)
            return True
        quoted = literal.replace("\\", "\\\\").replace('"', '\\"')
        self._miss(f'"{quoted}"')
        return False

    def _one_of(self, signs: frozenset[str], name: str) -> bool:
        if self._at < len(self._text) and self._text[self._at] in signs:
            self._at += 1
            return True
        self._miss(name)
        return False

    def _miss(self, name: str) -> None:
        if self._at > self._furthest:
            self._furthest = self._at
            self._expected.clear()
        if self._at == self._furthest:
            self._expected.add(name)

    def _wrong(self, rule: str, why: str, at: int | None = None) -> None:
        error = f'{self._place(self._at if at is None else at)}: rule "{rule}": {why}'
        if error not in self._errors:
            self._errors.append(error)

    def _place(self, at: int) -> str:
        line_start = self._text.rfind("\n", 0, at) + 1
        line = self._text.count("\n", 0, at) + 1
        return f"{line}:{at - line_start + 1} ({len(self._text[:at].encode())})"

    def _no_match(self) -> str:
        names = sorted(self._expected - {"EOF"}) + sorted(self._expected & {"EOF"})
        wanted = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)
        return f"{self._place(self._furthest)}: no match found, expected: {wanted}"


_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\",
}  # fmt: skip
_CODES = {"x": 2, "u": 4, "U": 8}


def _unquoted(inside: str) -> str | None:
    """The text between Go's double quotes; None when Go would not read it. A quote cannot be escaped here."""
    if "\n" in inside:
        return None
    if "\\" not in inside:
        return inside
    found: list[str] = []
    at = 0
    while at < len(inside):
        if inside[at] != "\\":
            found.append(inside[at])
            at += 1
            continue
        sign = inside[at + 1 : at + 2]
        digits = inside[at + 2 : at + 2 + _CODES.get(sign, 0)]
        if sign and sign in _ESCAPES:
            found.append(_ESCAPES[sign])
        elif sign in _CODES and len(digits) == _CODES[sign] and _is_code(digits):
            found.append(chr(int(digits, 16)))
        else:
            return None
        at += 2 + len(digits)
    return "".join(found)


def _is_code(digits: str) -> bool:
    if not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return False
    code = int(digits, 16)
    return code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
