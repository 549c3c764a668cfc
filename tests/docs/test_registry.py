"""docs/registry.md has every route and no other; docs/architecture.md every key."""

from __future__ import annotations

import inspect

from milkrun.consul import keys
from milkrun.registry.http.app import ROUTES
from milkrun.registry.txn import READS


def test_each_route_is_told_and_no_other(page, section, rows):
    table = rows(section(page("docs/registry.md"), "Endpoints"))[1:]

    assert {(row[0], row[1].strip("`")) for row in table} == {(route.method, route.path) for route in ROUTES}


def test_each_reading_verb_of_a_transaction_is_told(page):
    text = page("docs/registry.md")

    assert [verb for verb in READS if f"`{verb}`" not in text] == []


def shapes() -> set[str]:
    """Each key of the module, with its parameters in angle brackets."""
    found = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    for function in vars(keys).values():
        if inspect.isfunction(function) and function.__module__ == keys.__name__:
            found.add(function(*(f"<{name}>" for name in inspect.signature(function).parameters)))
    return found


def test_each_key_is_told_and_no_other(page, rows):
    text = page("docs/architecture.md").partition("\n### Keys\n")[2].partition("\n### ")[0]

    assert {row[0].strip("`") for row in rows(text)[1:]} == shapes()
