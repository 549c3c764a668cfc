"""Both registries, once for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from contract.consul_acl.registries import Both, consul, ours, populate


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("acl")
    with ours(folder / "ours") as mine, consul(folder / "consul") as theirs:
        for each in (mine, theirs):
            populate(each)
        yield Both(mine, theirs)
