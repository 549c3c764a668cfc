"""The fixtures that py-consul's suite takes its registries from, in place of its own, which start containers.

A pytest plugin: MILKRUN_KIND says which registry, and the next one starts while a test uses the last.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import uuid
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

Instance = namedtuple("Instance", ["container", "port", "version"])  # noqa: PYI024  their shape
NODE = "the-node"
"""No name that a test of theirs takes for a node of its own."""
Started = tuple[contextlib.ExitStack, int]

_PATH = Path(__file__).parents[1] / "consul" / "conftest.py"
_spec = importlib.util.spec_from_file_location("milkrun_contract_registries", _PATH)
assert _spec
assert _spec.loader
_registries = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_registries)


class Supply:
    """One registry is always on its way."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._starter = stack.enter_context(ThreadPoolExecutor(1))
        self._coming: Future[Started] = self._starter.submit(self._start)
        stack.callback(self._close_spare)

    def _close_spare(self) -> None:
        self._coming.result()[0].close()

    def _start(self, settings: dict[str, Any] | None = None) -> Started:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        with contextlib.ExitStack() as held:
            if os.environ["MILKRUN_KIND"] == "embedded":
                server = held.enter_context(_registries.embedded(folder, NODE))
            else:
                server = held.enter_context(_registries.consul(folder, NODE, **settings or {}))
            return held.pop_all(), server.port

    @contextlib.contextmanager
    def fresh(self) -> Iterator[int]:
        held, port = self._coming.result()
        self._coming = self._starter.submit(self._start)
        with held:
            yield port

    @contextlib.contextmanager
    def guarded(self, token: str) -> Iterator[int]:
        settings = {"primary_datacenter": "dc1", "acl": {"enabled": True, "tokens": {"master": token}}}
        held, port = self._start(settings)
        with held:
            yield port


@pytest.fixture(scope="session")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supply]:
    with contextlib.ExitStack() as stack:
        yield Supply(tmp_path_factory.mktemp("registries"), stack)


@pytest.fixture
def consul_instance(supply: Supply) -> Iterator[Instance]:
    with supply.fresh() as port:
        yield Instance(None, port, "1.8.7")


@pytest.fixture
def acl_consul_instance(supply: Supply) -> Iterator[tuple[Instance, str]]:
    token = uuid.uuid4().hex
    with supply.guarded(token) as port:
        yield Instance(None, port, "1.8.7"), token


@pytest.fixture
def consul_port(consul_instance: Instance) -> tuple[int, str]:
    return consul_instance.port, consul_instance.version
