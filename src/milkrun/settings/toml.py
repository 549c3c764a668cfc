"""TOML as our typed settings; what is wrong is named with its file, line and the nearest right key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from milkrun.errors import InputRefused
from milkrun.settings import toml_lines
from milkrun.settings.text import did_you_mean, plain_text, shown
from milkrun.settings.toml_lines import Path

_T = TypeVar("_T", bound=msgspec.Struct)
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


class Document(Generic[_T]):
    """A TOML file that has the asked shape: `value`, and where in the file each part of it stands."""

    def __init__(self, data: bytes, shape: type[_T], file: str) -> None:
        self._file = file
        self._text = plain_text(data, file)
        raw = self._parse()
        self._judge(raw, shape, ())
        self.value: _T = msgspec.convert(raw, shape)

    def refuse(self, path: Path, reason: str, *, remedy: str = "") -> NoReturn:
        """Raises InputRefused for the key at `path`, with its line."""
        line = toml_lines.nearest(toml_lines.lines(self._text), path)
        raise InputRefused(f"{_dotted(path)}: {reason}", file=self._file, line=line, remedy=remedy)

    def require(self, path: Path, true: bool, reason: str) -> None:
        """Refuses the key at `path` for `reason` unless `true`."""
        if not true:
            self.refuse(path, reason)

    def check(self, path: Path, judge: Callable[[str], object], text: str) -> None:
        """Refuses the key at `path` when `judge` refuses its text."""
        try:
            judge(text)
        except InputRefused as error:
            self.refuse(path, error.reason, remedy=error.remedy)

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except RecursionError as error:
            raise InputRefused("it is nested too deep", file=self._file) from error
        except ValueError as error:  # TOMLDecodeError, and int's own limit on digits
            reason = str(error)
            place = _PLACE.search(reason)
            line = 0
            if place:
                reason = reason[: place.start()]
                line = int(place["line"] or self._text.rstrip("\n").count("\n") + 1)
            raise InputRefused(f"not TOML: {reason}", file=self._file, line=line) from error

    def _judge(self, value: Any, shape: Any, path: Path) -> None:
        """Refuses the first part of `value` that has not its type.

        msgspec names a wrong key as `$.routers[...]`, which tells no line: so each part is asked by itself.
        """
        if isinstance(shape, type) and issubclass(shape, msgspec.Struct) and isinstance(value, dict):
            self._judge_fields(value, shape, path)
        elif get_origin(shape) is dict and isinstance(value, dict):
            for key, item in value.items():
                self._judge(item, get_args(shape)[1], (*path, key))
        elif get_origin(shape) is list and isinstance(value, list):
            for number, item in enumerate(value):
                self._judge(item, get_args(shape)[0], (*path, number))
        else:
            try:
                msgspec.convert(value, shape)
            except msgspec.ValidationError as error:
                self.refuse(path, _plain(str(error)))

    def _judge_fields(self, value: dict[str, Any], shape: type[msgspec.Struct], path: Path) -> None:
        hints = get_type_hints(shape)
        for key in value:
            if key not in hints:
                self.refuse((*path, key), f"unknown key{did_you_mean(key, hints)}")
        for field in msgspec.structs.fields(shape):
            if field.name in value:
                self._judge(value[field.name], hints[field.name], (*path, field.name))
            elif field.required:
                self.refuse((*path, field.name), "is missing")


def _plain(reason: str) -> str:
    reason = reason.partition(" - at `")[0]
    return reason[:1].lower() + reason[1:]


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + shown(part).strip("`")
    return text or "the file"
