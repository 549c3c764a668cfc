import asyncio

from ports import free_ports

from milkrun.agent.units.awaited import missing


async def test_the_first_who_does_not_accept_is_named():
    one, other = free_ports(2)
    addresses = [f"tcp://127.0.0.1:{one}", f"tcp://localhost:{other}"]
    assert await missing([]) == ""
    assert await missing(addresses) == f"tcp://127.0.0.1:{one}: connection refused"
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", one):
        assert (await missing(addresses)).startswith(f"tcp://localhost:{other}: ")
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", other):
            assert await missing(addresses) == ""


async def test_a_name_that_nobody_has_is_told():
    assert (await missing(["tcp://no-such-host.invalid:1"])).startswith("tcp://no-such-host.invalid:1: ")
