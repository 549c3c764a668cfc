"""docs/settings.md has every key with its default, and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from milkrun.model import VersionWish
from milkrun.settings.environment import Environment, RouterSettings, RouteSettings
from milkrun.settings.phases import PhaseSettings, PhasesSettings
from milkrun.settings.service import ServiceSettings

PAGE = "docs/settings.md"


def keys(shape: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key, dotted, with its default as the page writes it."""
    for field in msgspec.structs.fields(shape):
        name = f"{prefix}{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, f"{name}.")
        elif field.required:
            yield name, "required"
        else:
            default = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            yield name, default if default and isinstance(default, str) else json.dumps(default)
        if field.type == dict[str, RouterSettings]:
            yield from keys(RouterSettings, f"{name}.NAME.")
        if field.type == list[RouteSettings]:
            yield from keys(RouteSettings, f"{name}.")


@pytest.mark.parametrize(
    ("heading", "shape"), [("milkrun.toml", Environment), ("services/NAME.toml", ServiceSettings)]
)
def test_each_key_has_its_default(page, section, rows, heading, shape):
    table = rows(section(page(PAGE), heading))[1:]

    assert {row[0].strip("`"): row[2].strip("`") for row in table} == dict(keys(shape))


def test_each_key_of_a_phase_has_its_default(page, section, rows):
    text = section(page("docs/migrations.md"), "Other ways to write a phase")
    told = {row[0].strip("`"): row[2].strip("`") for row in rows(text) if row[0] != "Key"}

    assert told == {"alembic": PhasesSettings().alembic} | dict(keys(PhaseSettings, "PHASE."))


def test_a_deploy_files_keys_are_there(page, section, rows):
    table = rows(section(page(PAGE), "deploy/NAME.json"))[1:]

    told = {row[0].strip("`") for row in table}
    assert told == {field.name for field in msgspec.structs.fields(VersionWish)} | {
        "version=VERSION",
        "maintenance",
    }
