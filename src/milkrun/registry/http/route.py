"""Which handler answers which method and path, and what a token must allow for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache

import msgspec

from milkrun.registry.engine import Engine
from milkrun.registry.http.message import Reply, Request

PATHS_REMEMBERED = 1024

Handler = Callable[[Engine, Request], Awaitable[Reply]]
"""Answers a request. It runs in no task: it may await futures, but use neither TaskGroup nor asyncio.timeout."""


class Route(msgspec.Struct, frozen=True):
    """One endpoint. A path that ends in `/` takes whatever follows it.

    `resource` and `access` say what a token must allow: the kind of rule, and read, write or none; a kind after
    a plus is to be read as well, and `any` is any token. A handler whose access is not none has to ask for the
    client's authority, or its reply is not sent.
    """

    method: str
    path: str
    handler: Handler
    resource: str
    access: str


class Methods(msgspec.Struct, frozen=True):
    """The routes of one path, by method. `allow` is the header's text."""

    routes: dict[str, Route]
    allow: str


class Table:
    """The routes, found by path: the exact one, else the longest that the path starts with."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        found: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = found.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.path}")
            methods[route.method] = route
        self._methods = {
            path: Methods(methods, ",".join(["OPTIONS", *methods])) for path, methods in found.items()
        }
        self._depths = sorted({path.count("/") for path in found if path.endswith("/")}, reverse=True)
        self.find = lru_cache(maxsize=PATHS_REMEMBERED)(self._find)
        """The methods of a path and what follows the route's own path; None when nothing answers there."""

    def _find(self, path: str) -> tuple[Methods, str] | None:
        methods = self._methods.get(path)
        if methods:
            return methods, ""
        for depth in self._depths:
            parts = path.split("/", depth)
            if len(parts) > depth:
                methods = self._methods.get("/".join(parts[:depth]) + "/")
                if methods:
                    return methods, parts[depth]
        return None
