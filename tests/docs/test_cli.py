"""docs/cli.md names every command, option, error and JSON field that there is, and no other."""

from __future__ import annotations

import re

import click
import msgspec
import pytest

from milkrun import errors
from milkrun.cli.program import COMMANDS, program
from milkrun.load.figures import Figures
from milkrun.overview.explain import Explanation
from milkrun.overview.view import View
from milkrun.up.findings import Finding

PAGE = "docs/cli.md"


def options(command: click.Command) -> dict[str, click.Option]:
    """Each spelling of each option that the command's help shows."""
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    return {name: one for one in shown for name in (*one.opts, *one.secondary_opts)}


def named(text: str) -> set[str]:
    """The options that a table names in its first column."""
    return {
        name
        for line in text.splitlines()
        if line.startswith("| `-")
        for name in re.findall(r"`(--?[a-z-]+)`", line.split("|")[1].replace("\\", ""))
    }


def test_the_page_has_each_command_and_no_other(page):
    assert re.findall(r"^## milkrun (\w+)$", page(PAGE), re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_options_are_named_and_no_other(page, section, name):
    command = program.get_command(click.Context(program), name)
    assert command

    assert named(section(page(PAGE), f"milkrun {name}")) == options(command).keys()


def test_the_options_of_every_command_are_named(page, section):
    context = click.Context(program, **program.context_settings)
    known = {
        name for one in program.get_params(context) if isinstance(one, click.Option) for name in one.opts
    }

    assert named(section(page(PAGE), "Options of every command")) == known


@pytest.mark.parametrize("name", COMMANDS)
def test_numbers_that_are_defaults_are_told(page, section, name):
    command = program.get_command(click.Context(program), name)
    assert command
    text = section(page(PAGE), f"milkrun {name}")
    for one in command.params:
        if isinstance(one.default, int | float) and not isinstance(one.default, bool):
            row = next(line for line in text.splitlines() if f"`{one.opts[-1]}`" in line)
            assert f"{one.default:g}" in row, row


def subclasses(kind: type) -> list[type]:
    return [one for child in kind.__subclasses__() for one in (child, *subclasses(child))]


def test_each_error_has_its_code_and_exit_status(page, section, rows):
    table = rows(section(page(PAGE), "Exit statuses"))
    told = {row[1].strip("`"): (row[2].strip("`"), row[0]) for row in table if row[1].startswith("`")}
    ours = [errors.MilkrunError, *subclasses(errors.MilkrunError)]

    assert told == {
        one.__name__: (one.code, str(one.exit_status)) for one in ours if one.__module__ == errors.__name__
    }


def fields(shape: object) -> set[str]:
    """All field names of a struct, and of the structs in it."""
    found: set[str] = set()
    ahead = [msgspec.inspect.type_info(shape)]
    while ahead:
        kind = ahead.pop()
        if isinstance(kind, msgspec.inspect.StructType):
            found |= {field.encode_name for field in kind.fields}
            ahead += [field.type for field in kind.fields]
        for part in ("item_type", "value_type"):
            if hasattr(kind, part):
                ahead.append(getattr(kind, part))
        ahead += getattr(kind, "types", ())
    return found


@pytest.mark.parametrize(
    ("name", "shape"),
    [("status", View), ("explain", Explanation), ("load", Figures), ("doctor", Finding)],
)
def test_each_field_of_the_json_is_told(page, section, name, shape):
    words = set(re.findall(r"`(\w+)`", section(page(PAGE), f"milkrun {name}")))

    assert fields(shape) - words == set()
