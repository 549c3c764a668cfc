"""What files that are not published yet would change at the routers, and whether that takes a reload. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from milkrun.model import ServiceName, VersionName, Wish
from milkrun.router import ejection
from milkrun.router.desired import slots
from milkrun.router.front import Front, Route, front
from milkrun.settings.environment import Environment
from milkrun.settings.service import ServiceSettings


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment's files say: all that routers go by."""

    environment: Environment
    services: dict[ServiceName, ServiceSettings] = {}
    wishes: dict[ServiceName, Wish] = {}

    def front(self, name: str) -> Front | None:
        """Where the router stands; None when there is no such router."""
        settings = self.environment.routers.get(name)
        return front(name, settings, self.services) if settings else None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one router. `how` is `reload` (hitless), `at once` (no reload), `restart`, `start` or `stop`."""

    router: str
    what: str
    how: str


def steps(before: Files, after: Files) -> list[Step]:
    """What the routers would do when the files change from `before` to `after`."""
    names = sorted(before.environment.routers.keys() | after.environment.routers.keys())
    return [step for name in names for step in _router(name, before, after)]


def _router(name: str, before: Files, after: Files) -> Iterator[Step]:
    old, new = before.front(name), after.front(name)
    if old is None or new is None:
        how = "start" if old is None else "stop"
        yield Step(router=name, what=f"the router is {'new' if old is None else 'dropped'}", how=how)
        return
    if old.data_plane != new.data_plane:
        what = f"{old.data_plane} ends its requests, then {new.data_plane} starts: not hitless"
        yield Step(router=name, what=what, how="restart")
    for what in _fronts(old, new):
        yield Step(router=name, what=what, how="reload")
    for service in sorted(old.services.keys() & new.services.keys()):
        if old.services[service].ejection != new.services[service].ejection:
            what = f"who fails at {service} is put aside by other limits ([traffic.ejection] of its file)"
            yield Step(router=name, what=what, how="at once")
    if old.metrics != new.metrics:
        shown = _written(new.metrics) if new.metrics else "nowhere"
        yield Step(router=name, what=f"metrics are shown at {shown}", how="at once")
    for service in sorted(new.services):
        for what in _wishes(service, before.wishes.get(service, Wish()), after.wishes.get(service, Wish())):
            yield Step(router=name, what=what, how="at once")


def _fronts(old: Front, new: Front) -> Iterator[str]:
    for field in ("listen", "stats"):
        was, is_ = _written(getattr(old, field)), _written(getattr(new, field))
        if was != is_:
            yield f"{field} {was} becomes {is_}"
    yield from _routes(old.routes, new.routes)
    for service in sorted(old.services.keys() & new.services.keys()):
        if ejection.as_told(old.services[service]) != ejection.as_told(new.services[service]):
            yield f"{service} is treated in another way ([traffic] of its file)"
    for each in (field.name for field in msgspec.structs.fields(Front) if field.name not in _TOLD):
        if getattr(old, each) != getattr(new, each):
            yield f"{each} {getattr(old, each)!r} becomes {getattr(new, each)!r}"


_TOLD = ("name", "data_plane", "listen", "stats", "routes", "services", "metrics")


def _routes(old: tuple[Route, ...], new: tuple[Route, ...]) -> Iterator[str]:
    for route in new:
        if route not in old:
            yield f"a route: {_said(route)}"
    for route in old:
        if route not in new:
            yield f"no longer: {_said(route)}"
    if [route for route in old if route in new] != [route for route in new if route in old]:
        yield "the routes have another order"


def _wishes(service: ServiceName, old: Wish, new: Wish) -> Iterator[str]:
    if old.maintenance != new.maintenance:
        yield f"{service} {'is in' if new.maintenance else 'leaves'} maintenance"
    was, will = slots(old.weights), slots(new.weights)
    for version in sorted(was.keys() | will.keys()):
        if was.get(version) != will.get(version):
            yield f"{service} {version}: {_share(was, version)} becomes {_share(will, version)}"
    for version in sorted(old.versions.keys() | new.versions.keys()):
        count = [
            wish.versions[version].replicas or 0 if version in wish.versions else 0 for wish in (old, new)
        ]
        if count[0] != count[1]:
            yield f"{service} {version}: {count[0]} replicas become {count[1]}"


def _share(shares: Mapping[VersionName, int], version: VersionName) -> str:
    return f"{shares.get(version, 0) / 100:.2f} %"


def _said(route: Route) -> str:
    parts = [
        " ".join(route.methods),
        route.host + route.path if route.host or route.path != "/" else "everything",
    ]
    parts += [f"{name}: {value}" for name, value in route.headers]
    return f"{', '.join(part for part in parts if part)} to {route.service}"


def _written(place: tuple[str, int]) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
