"""An expression over a kind of answer becomes a test of one answer, or is refused by name. Pure.

Operators mean what they mean to go-bexpr, its oddities included: a comparison with a name that a map has not
fails for "Equal", "In" and "Is Empty" and holds for all others, "Matches" too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from milkrun.registry.filters.expression import And, Expression, Match, Not, Operator, Or, no, parse
from milkrun.registry.filters.pattern import Budget, Pattern
from milkrun.registry.filters.shapes import Each, Fields, Kind, Named, Shape
from milkrun.registry.filters.syntax import WrongPattern

Predicate = Callable[[Any], bool]
"""Whether a value, in the builtin types that JSON has, passes."""

_OPERATORS: dict[Kind, frozenset[Operator]] = {
    Kind.TEXT: frozenset(
        {
            Operator.EQUAL,
            Operator.NOT_EQUAL,
            Operator.IN,
            Operator.NOT_IN,
            Operator.MATCHES,
            Operator.NOT_MATCHES,
        }
    ),
    Kind.NUMBER: frozenset({Operator.EQUAL, Operator.NOT_EQUAL}),
    Kind.FLAG: frozenset({Operator.EQUAL, Operator.NOT_EQUAL}),
    Kind.TEXTS: frozenset({Operator.IN, Operator.NOT_IN, Operator.IS_EMPTY, Operator.IS_NOT_EMPTY}),
}
_EMPTINESS = frozenset({Operator.IS_EMPTY, Operator.IS_NOT_EMPTY})
_NEGATED = frozenset({Operator.NOT_EQUAL, Operator.NOT_IN, Operator.IS_NOT_EMPTY, Operator.NOT_MATCHES})
_HOLDS_FOR_THE_MISSING = {
    Operator.EQUAL: False,
    Operator.IN: False,
    Operator.IS_EMPTY: False,
    Operator.NOT_EQUAL: True,
    Operator.NOT_IN: True,
    Operator.IS_NOT_EMPTY: True,
    Operator.MATCHES: True,
    Operator.NOT_MATCHES: True,
}
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_INT64 = 2**63


def predicate(text: str, shape: Fields) -> Predicate:
    """The test that the filter's text asks for. Raises Refused (400).

    A test that takes too many steps over all that it is asked about raises Refused as well.
    """
    return _test(parse(text), shape, Budget())


def _test(expression: Expression, shape: Fields, budget: Budget) -> Predicate:
    match expression:
        case Match():
            return _comparison(expression, shape, budget)
        case Not():
            inner = _test(expression.of, shape, budget)
            return lambda value: not inner(value)
        case And():
            every = [_test(each, shape, budget) for each in expression.of]
            return lambda value: all(test(value) for test in every)
        case Or():
            some = [_test(each, shape, budget) for each in expression.of]
            return lambda value: any(test(value) for test in some)
        case _:
            assert_never(expression)


def _comparison(match: Match, shape: Fields, budget: Budget) -> Predicate:
    _check_names(match, shape)
    return _descend(match, 0, shape, budget)


def _check_names(match: Match, shape: Shape) -> None:
    for place, part in enumerate(match.selector):
        at = shape.of if isinstance(shape, Each) else shape
        if isinstance(at, Named):
            shape = at.of
        elif isinstance(at, Fields) and part in at.of:
            shape = at.of[part]
        else:
            raise no(f'Selector "{".".join(match.selector[: place + 1])}" is not valid')


def _descend(match: Match, depth: int, shape: Shape, budget: Budget) -> Predicate:
    """The test of a value of this shape, for what is left of the selector."""
    if depth == len(match.selector):
        return _leaf(match, shape, budget)
    part = match.selector[depth]
    match shape:
        case Fields():
            inner = _descend(match, depth + 1, shape.of[part], budget)
            return lambda value: inner(_field(value, part))
        case Named():
            inner = _descend(match, depth + 1, shape.of, budget)
            missing = _HOLDS_FOR_THE_MISSING[match.operator]
            return lambda value: inner(value[part]) if value and part in value else missing
        case Each():
            inner = _descend(match, depth, shape.of, budget)
            return lambda value: any(inner(each) for each in value or ())
        case Kind():
            raise AssertionError("a selector was not checked")
        case _:
            assert_never(shape)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _leaf(match: Match, shape: Shape, budget: Budget) -> Predicate:
    if match.operator not in _allowed(shape):
        raise no(f'Invalid match operator "{match.operator}" for selector "{".".join(match.selector)}"')
    test = _plain(match, shape, budget)
    return (lambda value: not test(value)) if match.operator in _NEGATED else test


def _allowed(shape: Shape) -> frozenset[Operator]:
    match shape:
        case Kind():
            return _OPERATORS[shape]
        case Named():
            return _OPERATORS[Kind.TEXTS]
        case Each():
            return _EMPTINESS
        case Fields():
            return frozenset()
        case _:
            assert_never(shape)


def _plain(match: Match, shape: Shape, budget: Budget) -> Predicate:
    """The test without the operator's "not"."""
    wanted = match.value or ""
    if shape is Kind.NUMBER:
        number = _number(match, wanted)
        return lambda value: bool((value or 0) == number)
    if shape is Kind.FLAG:
        flag = _flag(match, wanted)
        return lambda value: bool(value) == flag
    match match.operator:
        case Operator.IS_EMPTY | Operator.IS_NOT_EMPTY:
            return lambda value: not value
        case Operator.MATCHES | Operator.NOT_MATCHES:
            pattern = _pattern(wanted, budget)
            return lambda value: pattern.found_in(value or "")
        case Operator.EQUAL | Operator.NOT_EQUAL:
            return lambda value: bool((value or "") == wanted)
        case Operator.IN | Operator.NOT_IN:
            return lambda value: wanted in (value or "")


def _pattern(text: str, budget: Budget) -> Pattern:
    try:
        return Pattern(text, budget)
    except WrongPattern as wrong:
        shown = text.replace("\\", "\\\\").replace('"', '\\"')
        raise no(f'Failed to compile regular expression "{shown}": {wrong}') from wrong


def _number(match: Match, text: str) -> int:
    """As Go reads an integer whose base its prefix says."""
    try:
        octal = text.lstrip("+-").startswith("0") and text.lstrip("+-")[1:2].isdigit()
        found = int(text, 8 if octal else 0) if text.isascii() and text == text.strip() else None
    except ValueError:
        found = None
    if found is None:
        raise _cannot(match, f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if not -_INT64 <= found < _INT64:
        raise _cannot(match, f'strconv.ParseInt: parsing "{text}": value out of range')
    return found


def _flag(match: Match, text: str) -> bool:
    if text not in (*_TRUE, *_FALSE):
        raise _cannot(match, f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def _cannot(match: Match, why: str) -> Exception:
    return no(f'Failed to coerce value "{match.value}" for selector "{".".join(match.selector)}": {why}')
