"""The HAProxy releases that the data plane is tested on: the one of this machine (2.8), and those that
.ci/parts/haproxy.sh unpacks (2.6 and 3.0).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

UNPACKED = {
    suite: Path(__file__).parent.parent / ".parts" / f"haproxy-of-{suite}" / "haproxy"
    for suite in ("bookworm", "trixie")
}


def all_here() -> bool:
    return all(path.is_file() for path in UNPACKED.values())


OTHERS = [
    pytest.param(str(path), id=f"haproxy-of-{suite}", marks=pytest.mark.needs("haproxies"))
    for suite, path in UNPACKED.items()
]


def on_each_release(test: Callable) -> Callable:
    """The test runs on each release; needs the fixture `release`."""
    releases = [pytest.param("", id="haproxy"), *OTHERS]
    return pytest.mark.usefixtures("release")(
        pytest.mark.parametrize("release", releases, indirect=True)(test)
    )
