"""A pattern's text in Go's syntax (RE2) becomes its parts, or is refused with Go's words. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from enum import StrEnum, auto

import msgspec

REPEATS_AT_MOST = 1000
SIZE_AT_MOST = 1000
DEPTH_AT_MOST = 50

_Holds = Callable[[str], bool]


class WrongPattern(ValueError):
    """This is no pattern; the text is Go's."""

    def __init__(self, why: str, what: str | None = None) -> None:
        super().__init__(f"error parsing regexp: {why}" + ("" if what is None else f": `{what}`"))


class Place(StrEnum):
    """What can hold between two signs."""

    START = auto()
    END = auto()
    LINE_START = auto()
    LINE_END = auto()
    WORD_EDGE = auto()
    NO_WORD_EDGE = auto()


class Signs(msgspec.Struct, frozen=True):
    """One sign for which `holds` is true."""

    holds: _Holds


class Assertion(msgspec.Struct, frozen=True):
    """Nothing, where `place` holds."""

    place: Place


class Row(msgspec.Struct, frozen=True):
    """One after the other."""

    of: tuple[Syntax, ...]


class Alternatives(msgspec.Struct, frozen=True):
    """One of them."""

    of: tuple[Syntax, ...]


class Repeat(msgspec.Struct, frozen=True):
    """From `least` to `most` times; None is without end."""

    of: Syntax
    least: int
    most: int | None


Syntax = Signs | Assertion | Row | Alternatives | Repeat


def is_word(sign: str) -> bool:
    """Whether the sign is one of a word, as Go counts them."""
    return sign == "_" or (sign.isascii() and sign.isalnum())


def _is_digit(sign: str) -> bool:
    return sign in "0123456789"


def _is_space(sign: str) -> bool:
    return sign in "\t\n\f\r "


_KINDS: dict[str, _Holds] = {"d": _is_digit, "s": _is_space, "w": is_word}
_POSIX: dict[str, _Holds] = {
    "alnum": lambda sign: sign.isascii() and sign.isalnum(),
    "alpha": lambda sign: sign.isascii() and sign.isalpha(),
    "ascii": str.isascii,
    "blank": lambda sign: sign in "\t ",
    "cntrl": lambda sign: sign < " " or sign == "\x7f",
    "digit": _is_digit,
    "graph": lambda sign: "!" <= sign <= "~",
    "lower": lambda sign: "a" <= sign <= "z",
    "print": lambda sign: " " <= sign <= "~",
    "punct": lambda sign: "!" <= sign <= "~" and not sign.isalnum(),
    "space": lambda sign: sign in "\t\n\v\f\r ",
    "upper": lambda sign: "A" <= sign <= "Z",
    "word": is_word,
    "xdigit": lambda sign: sign in "0123456789abcdefABCDEF",
}
_LETTERS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_PLACES = {"A": Place.START, "z": Place.END, "b": Place.WORD_EDGE, "B": Place.NO_WORD_EDGE}


def read(text: str) -> Syntax:
    """The pattern's parts. Raises WrongPattern."""
    if len(text) > SIZE_AT_MOST:
        raise WrongPattern(f"expression is longer than {SIZE_AT_MOST} characters")
    reader = _Reader(text)
    found = reader.alternatives(frozenset(), 0)
    if reader.at < len(text):
        raise WrongPattern("unexpected )", text)
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def alternatives(self, flags: frozenset[str], depth: int) -> Syntax:
        """What stands up to a closing parenthesis or the end."""
        if depth > DEPTH_AT_MOST:
            raise WrongPattern(f"expression nests more than {DEPTH_AT_MOST} deep")
        rows: list[Syntax] = []
        row: list[Syntax] = []
        while self._here() not in ("", ")"):
            if self._take("|"):
                rows.append(Row(tuple(row)))
                row = []
            elif self._take("(?") and (changed := self._flags(flags)) is not None:
                flags = changed
            else:
                row.append(self._repeated(flags, depth))
        rows.append(Row(tuple(row)))
        return rows[0] if len(rows) == 1 else Alternatives(tuple(rows))

    def _repeated(self, flags: frozenset[str], depth: int) -> Syntax:
        sign = self._here()
        if sign in "*+?":
            raise WrongPattern("missing argument to repetition operator", sign)
        start = self.at
        if sign == "{" and self._counts():
            raise WrongPattern("missing argument to repetition operator", self._text[start : self.at])
        found = self._one(flags, depth)
        start, counts = self.at, self._counts()
        if counts is None:
            return found
        self._take("?")
        again = self.at
        if self._counts() is not None:
            raise WrongPattern("invalid nested repetition operator", self._text[start : self.at])
        self.at = again
        return Repeat(found, *counts)

    def _counts(self) -> tuple[int, int | None] | None:
        """How often, if a repetition stands here."""
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        start = self.at
        end = self._text.find("}", start)
        if self._here() != "{" or end < 0:
            return None
        least, comma, most = self._text[start + 1 : end].partition(",")
        if not _is_count(least) or (most and not _is_count(most)):
            return None
        self.at = end + 1
        low = int(least)
        high = low if not comma else int(most) if most else None
        if low > REPEATS_AT_MOST or (high is not None and (high > REPEATS_AT_MOST or high < low)):
            raise WrongPattern("invalid repeat count", self._text[start : end + 1])
        return low, high

    def _one(self, flags: frozenset[str], depth: int) -> Syntax:
        sign = self._next()
        match sign:
            case "(":
                return self._group(flags, depth)
            case "[":
                return Signs(self._class(flags))
            case ".":
                return Signs((lambda _: True) if "s" in flags else (lambda sign: sign != "\n"))
            case "^":
                return Assertion(Place.LINE_START if "m" in flags else Place.START)
            case "$":
                return Assertion(Place.LINE_END if "m" in flags else Place.END)
            case "\\":
                return self._escape(flags)
            case _:
                return Signs(_just(sign, flags))

    def _group(self, flags: frozenset[str], depth: int) -> Syntax:
        start = self.at - 1
        if self._take("?"):
            if self._take("P<"):
                name, closed, _ = self._text[self.at :].partition(">")
                if not closed or not name or not all(is_word(sign) for sign in name):
                    raise WrongPattern("invalid named capture", self._text[start:])
                self.at += len(name) + 1
            else:
                flags = self._group_flags(flags, start)
        found = self.alternatives(flags, depth + 1)
        if not self._take(")"):
            raise WrongPattern("missing closing )", self._text)
        return found

    def _group_flags(self, flags: frozenset[str], start: int) -> frozenset[str]:
        changed = self._changed(flags)
        if changed is None or not self._take(":"):
            raise WrongPattern("invalid or unsupported Perl syntax", self._text[start : self.at + 1])
        return changed

    def _flags(self, flags: frozenset[str]) -> frozenset[str] | None:
        """The flags from here on, if `(?flags)` stands here; else the place is before the parenthesis again."""
        start = self.at - 2
        changed = self._changed(flags)
        if changed is not None and self.at > start + 2 and self._take(")"):
            return changed
        self.at = start
        return None

    def _changed(self, flags: frozenset[str]) -> frozenset[str] | None:
        on, off, taking = set(flags), False, True
        while taking:
            sign = self._here()
            if sign and sign in "imsU":
                on.discard(sign) if off else on.add(sign)
            elif sign == "-" and not off:
                off = True
            else:
                taking = False
                continue
            self.at += 1
        return None if self._here() not in (":", ")") else frozenset(on)

    def _escape(self, flags: frozenset[str]) -> Syntax:
        sign = self._here()
        if sign == "Q":
            quoted, _, _ = self._text[self.at + 1 :].partition("\\E")
            self.at = min(len(self._text), self.at + 1 + len(quoted) + 2)
            return Row(tuple(Signs(_just(each, flags)) for each in quoted))
        if sign in _PLACES:
            self.at += 1
            return Assertion(_PLACES[sign])
        return Signs(self._kind() or _just(self._escaped(), flags))

    def _kind(self) -> _Holds | None:
        """The kind of signs that the escape names, if it names one: digits, no spaces, letters."""
        sign = self._here()
        if sign and sign.lower() in _KINDS:
            self.at += 1
            holds = _KINDS[sign.lower()]
            return _not(holds) if sign.isupper() else holds
        if sign and sign in "pP":
            start = self.at - 1
            self.at += 1
            name = self._next()
            if name == "{":
                name, _, _ = self._text[self.at :].partition("}")
                self.at += len(name) + 1
            negated = (sign == "P") != name.startswith("^")
            name = name.removeprefix("^")
            if name not in _CATEGORIES:
                raise WrongPattern("invalid character class range", self._text[start : self.at])
            holds = _of_category(name)
            return _not(holds) if negated else holds
        return None

    def _escaped(self) -> str:
        """The one sign that the escape stands for."""
        start = self.at - 1
        sign = self._next()
        if not sign:
            raise WrongPattern("trailing backslash at end of expression", "")
        if sign in _LETTERS:
            return _LETTERS[sign]
        if sign == "x":
            digits = self._text[self.at : self.at + 2]
            if self._take("{"):
                digits, _, _ = self._text[self.at :].partition("}")
                self.at += 1
            self.at += len(digits)
            if digits and len(digits) <= 8 and all(each in "0123456789abcdefABCDEF" for each in digits):
                code = int(digits, 16)
                if code <= 0x10FFFF:
                    return chr(code)
        elif sign == "0":
            digits = "0"
            while len(digits) < 3 and self._here() and self._here() in "01234567":
                digits += self._next()
            return chr(int(digits, 8))
        elif sign.isascii() and not sign.isalnum():
            return sign
        raise WrongPattern("invalid escape sequence", self._text[start : self.at])

    def _class(self, flags: frozenset[str]) -> _Holds:
        start = self.at - 1
        negated = self._take("^")
        tests: list[_Holds] = []
        first = True
        while first or self._here() != "]":
            first = False
            if not self._here():
                raise WrongPattern("missing closing ]", self._text[start:])
            tests.append(self._posix() or self._range(flags))
        self.at += 1

        def holds(sign: str) -> bool:
            return any(test(sign) for test in tests) != negated

        return holds

    def _posix(self) -> _Holds | None:
        end = self._text.find(":]", self.at)
        if not self._text.startswith("[:", self.at) or end < 0:
            return None
        start, self.at = self.at, end + 2
        name = self._text[start + 2 : end]
        holds = _POSIX.get(name.removeprefix("^"))
        if holds is None:
            raise WrongPattern("invalid character class range", self._text[start : self.at])
        return _not(holds) if name.startswith("^") else holds

    def _range(self, flags: frozenset[str]) -> _Holds:
        start = self.at
        if self._take("\\"):
            kind = self._kind()
            if kind is not None:
                return kind
            low = self._escaped()
        else:
            low = self._next()
        high = low
        if self._here() == "-" and self._text[self.at + 1 : self.at + 2] not in ("", "]"):
            self.at += 1
            high = self._escaped() if self._take("\\") else self._next()
            if high < low:
                raise WrongPattern("invalid character class range", self._text[start : self.at])
        if "i" not in flags:
            return lambda sign: low <= sign <= high
        return lambda sign: any(low <= each <= high for each in (sign, sign.lower(), sign.upper()))

    def _here(self) -> str:
        return self._text[self.at : self.at + 1]

    def _next(self) -> str:
        sign = self._here()
        self.at += len(sign)
        return sign

    def _take(self, literal: str) -> bool:
        if self._text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _just(wanted: str, flags: frozenset[str]) -> _Holds:
    if "i" in flags:
        folded = wanted.lower()
        return lambda sign: sign.lower() == folded
    return lambda sign: sign == wanted


def _not(holds: _Holds) -> _Holds:
    return lambda sign: not holds(sign)


_CATEGORIES = frozenset(
    ("L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps")
) | frozenset(
    ("Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Co")
)


def _of_category(name: str) -> _Holds:
    return lambda sign: unicodedata.category(sign).startswith(name)
