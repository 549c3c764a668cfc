"""The environments that `milkrun init` can start from: each folder beside this file is one."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from milkrun.errors import Conflict, MilkrunError, NotFound
from milkrun.settings.text import typed

_NOT_COPIED = "__pycache__"
_STORED_AS = {"gitignore": ".gitignore"}  # under its real name it would act on this repository too


def names() -> list[str]:
    """The templates there are."""
    return sorted(entry.name for entry in _home().iterdir() if entry.is_dir() and entry.name != _NOT_COPIED)


def create(folder: Path, template: str) -> None:
    """`folder` holds a copy of the template's files. It may be new or empty; any other is refused.

    Raises NotFound for an unknown template and Conflict for a folder that is taken.
    """
    if template not in names():
        raise NotFound(
            f"there is no template {template!r}; there are: {', '.join(names())}",
            remedy=f"milkrun init {typed(folder)} --template {names()[-1]}",
        )
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Conflict(
                f"{folder} is there already and not an empty folder; nothing was written",
                remedy="name a new folder, or run `milkrun up` in this one if it is an environment",
            )
        folder.mkdir(parents=True, exist_ok=True)
        _copy(_home() / template, folder)
    except OSError as error:
        raise MilkrunError(
            f"{folder} cannot be written: {error.strerror or error}",
            remedy="name a folder that you may write to",
        ) from error


def _home() -> Traversable:
    return resources.files(__name__)


def _copy(source: Traversable, target: Path) -> None:
    for entry in source.iterdir():
        if entry.name == _NOT_COPIED:
            continue
        place = target / _STORED_AS.get(entry.name, entry.name)
        if entry.is_dir():
            place.mkdir()
            _copy(entry, place)
        else:
            place.write_bytes(entry.read_bytes())
