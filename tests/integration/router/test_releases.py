"""What the releases of HAProxy do differently: 2.6 does not say what came of a reload."""

from __future__ import annotations

import pytest
from haproxies import on_each_release

from milkrun.router.haproxy.process import Refused


@on_each_release
async def test_a_refused_reload_is_seen_costs_nothing_and_the_next_good_one_works(site, make_state):
    """The check before each reload is left out here: what is true when a file passes it and fails all the same."""
    a = site.app("a")
    await site.plane.start(make_state({"v1": 10_000}, v1=[a.server()]))
    process, file = site.plane.proxy._process, site.folder / "haproxy.cfg"
    good = file.read_text()

    for _ in range(2):
        file.write_text(good + "\nmilked\n")
        with pytest.raises(Refused):
            await process.reload()
        assert await site.ask() == "200 a"

        file.write_text(good)
        await process.reload()
        assert await site.ask() == "200 a"
