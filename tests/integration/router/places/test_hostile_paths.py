"""Five thousand odd paths at a sidecar: whoever answers is the one that the path names, however it is read later."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from urllib.parse import unquote

import msgspec

from milkrun.router.haproxy import entrance

PIECES = [
    *("/", "//", "/goat", "/farmer", "goat", "farmer", "x", "a.b", "...", "..a", "%20", "~"),
    *(".", "..", "/..", "/.", "%2e", "%2E", ".%2e", "%2e.", "/../", "/..;", ";", ";a=b", "..;a=b/"),
    *("%2f", "%2F", "%5c", "\\", "/..\\", "..%2f", "%252e%252e", "%2fgoat", "%00", "?", "?/../farmer"),
]
PATHS = 5_000
AT_ONCE = 200


def odd(seed: int) -> str:
    """A path of up to eight pieces."""
    chance = random.Random(seed)
    start = chance.choice(["/", "/goat", "/goat/", "/farmer/", "//"])
    return start + "".join(chance.choice(PIECES) for _ in range(chance.randrange(8)))


def leads_to(path: str) -> str:
    """Where the most obliging server takes the path: decoded, without parameters, resolved; its first segment."""
    text = unquote(path.partition("?")[0]).replace("\\", "/")
    there: list[str] = []
    for segment in text.split("/")[1:]:
        match re.sub(";.*", "", segment):
            case "..":
                there = there[:-1]
            case ".":
                pass
            case plain:
                there.append(plain)
    return there[0] if there else ""


async def asked(site, paths: list[str]) -> list[tuple[str, str]]:
    """Who answered each path, or the status, with the path that the instance saw; on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    found = []
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: farm\r\n\r\n".encode("latin-1"))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode().lower()
        length = re.search(r"^content-length: (\d+)\r$", head, re.MULTILINE)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if head.split()[1] == "200":
            seen = msgspec.json.decode(body)
            found.append((seen["who"], seen["path"]))
        else:
            found.append((head.split()[1], ""))
        if not length or "connection: close" in head:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.close()
    return found


async def strays(site, seed: int) -> tuple[list[str], Counter[str]]:
    """The paths that reached somebody whom they do not name, or an instance's root by another way; and who answered."""
    wrong = []
    who: Counter[str] = Counter()
    for first in range(seed, seed + PATHS, AT_ONCE):
        paths = [odd(number) for number in range(first, first + AT_ONCE)]
        for path, (name, seen) in zip(paths, await asked(site, paths), strict=True):
            who[name] += 1
            if name in {"goat", "farmer"} and (
                leads_to(path) != name or leads_to(f"/{name}{seen}") != name or seen[:1] != "/"
            ):
                wrong.append(path)
    return wrong, who


async def test_who_answers_is_whom_the_path_names_however_it_is_read(sidecar):
    wrong, who = await strays(sidecar, 1)

    assert wrong == []
    assert who["goat"] > PATHS / 20
    assert who["400"] > PATHS / 20
    assert who["404"] > PATHS / 20
    assert who.keys() <= {"goat", "farmer", "400", "404"}


async def test_without_the_guard_many_do_not(stand, instance, monkeypatch):
    monkeypatch.setattr(entrance, "plain_paths", list)
    site = stand(sidecar=True)
    await site.start(goat=[("goat", (await instance("goat")).port)], farmer=[])

    wrong, _ = await strays(site, 1)

    assert len(wrong) > PATHS / 100
