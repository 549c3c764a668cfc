"""docs/openapi.json describes every route and every parameter of the registry, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bad_input.description import METHODS, operations, parameters, resolved, route_of

from milkrun.registry import http
from milkrun.registry.http.app import ROUTES

READ = (
    re.compile(r'request\.(?:one|flag|true|unsigned)\("([a-z-]+)"\)'),
    re.compile(r'\.query\.get\("([a-z-]+)"'),
)
TAKEN_AND_PASSED_OVER = {"near", "wan"}
"""Clients send them; they change nothing here."""
READ_IN_A_LOOP = {"id", "address"}
"""Of /v1/operator/raft/peer."""


def test_every_route_is_described_and_no_other():
    described = [(method.upper(), route_of(path)) for method, path in operations()]
    assert sorted(described) == sorted((route.method, route.path) for route in ROUTES)


def test_every_parameter_that_a_handler_reads_is_described_and_no_other(description):
    source = "\n".join(path.read_text() for path in Path(http.__file__).parent.glob("*.py"))
    read = {name for pattern in READ for name in pattern.findall(source)}
    described = {
        name
        for item in description["paths"].values()
        for method in METHODS
        if method in item
        for name in parameters(description, item[method], "query")
    }
    assert described - TAKEN_AND_PASSED_OVER == read | READ_IN_A_LOOP


def test_every_operation_has_a_name_of_its_own(description):
    names = [description["paths"][path][method]["operationId"] for method, path in operations()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", ["parameters", "responses", "schemas"])
def test_every_component_is_used_and_is_there(description, kind):
    used = set(re.findall(rf"'#/components/{kind}/(\w[\w-]*)'", str(description)))
    assert used == set(description["components"][kind])


def test_every_path_has_the_parameters_that_it_names(description):
    for method, path in operations():
        named = set(re.findall(r"\{(\w+)\}", path))
        assert parameters(description, description["paths"][path][method], "path").keys() == named


def test_every_answer_is_described(description):
    for method, path in operations():
        answers = description["paths"][path][method]["responses"]
        assert {"200", "default"} <= answers.keys()
        assert all(resolved(description, each)["description"] for each in answers.values())
