"""A router's daemon and its certificates: what it reports of them, and that renewal needs nobody else."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

WITHIN_S = 30.0


class Shop:
    """The folder of shop.example's certificate, and a client that trusts who signs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(self.context)

    def put(self, *, days: float = 365) -> None:
        made = self._ca.issue_cert("shop.example", not_after=datetime.now(UTC) + timedelta(days=days))
        self.write(made.private_key_and_cert_chain_pem.bytes())

    def write(self, data: bytes) -> None:
        (self._folder / ".draft").write_bytes(data)
        (self._folder / ".draft").replace(self._folder / "shop.pem")

    async def serial(self, port: int) -> str:
        """The serial number of the certificate that a request is served with."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=self.context, server_hostname="shop.example"
        )
        found = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        writer.write(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), WITHIN_S)).startswith(b"HTTP/1.1 200")
        writer.close()
        return found

    async def another(self, port: int, before: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while await self.serial(port) == before:
                await asyncio.sleep(0.02)


@pytest.fixture
async def shop(fleet, tmp_path) -> Shop:
    """The fleet's router listens by TLS."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    found = Shop(folder)
    await fleet.settle(certificates=str(folder))
    await fleet.goat("a", "0.0.1")
    return found


async def test_what_is_wrong_with_a_certificate_is_in_the_report_until_it_is_right(fleet, shop):
    shop.put(days=5)
    async with fleet.router():
        report = await fleet.reported(lambda report: report.alarms)
        assert "certificate 'shop.pem' expires within 7 days" in report.alarms[0]

        shop.write(b"no certificate")

        report = await fleet.reported(lambda report: len(report.alarms) == 2)
        assert "'shop.pem' is refused" in report.alarms[0]
        assert "the one before it stays" in report.alarms[0]
        before = await shop.serial(fleet.listen[1])

        shop.put()

        await shop.another(fleet.listen[1], before)
        assert (await fleet.reported(lambda report: not report.alarms)).reloads == 1


async def test_a_certificate_is_renewed_while_the_registry_is_away_also_by_a_router_that_never_met_it(
    fleet, shop
):
    shop.put()
    async with fleet.router(hand_over=True):
        await fleet.serves("a")
        await fleet.between.down()
        before = await shop.serial(fleet.listen[1])
        shop.put()
        await shop.another(fleet.listen[1], before)
    async with fleet.router():
        before = await shop.serial(fleet.listen[1])
        shop.put()
        await shop.another(fleet.listen[1], before)
        await fleet.between.up()
        await fleet.serves("a")
