"""Secrets that git gives away: a service is refused whose secret is a file of the repository itself. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

import msgspec

from milkrun.errors import InputRefused
from milkrun.gitsync.tree import Wanted
from milkrun.model import CommitId, Refusal, ServiceName
from milkrun.repository import File
from milkrun.settings import toml_lines
from milkrun.settings.service import ServiceSettings
from milkrun.settings.text import typed
from milkrun.settings.toml_lines import Path


def places(services: Mapping[ServiceName, ServiceSettings], root: str) -> set[str]:
    """What stands at the top of the repository in `root` and secrets lie in: there one has to look for them."""
    paths = (path for settings in services.values() for path, _, _ in _secrets(settings))
    return {inside.partition("/")[0] for path in paths if (inside := _inside(path, root))}


def _secrets(settings: ServiceSettings) -> Iterator[tuple[str, str, Path]]:
    """The path of each file with a secret in it, what it is called, and where the settings name it."""
    for name, path in sorted(settings.secrets.items()):
        yield path, f"the secret {name}", ("secrets", name)
    if settings.migration.url_file:
        yield settings.migration.url_file, "the file with the database's URL", ("migration", "url_file")


def given_away(
    settings: ServiceSettings, root: str, tracked: Mapping[str, File]
) -> tuple[Path, InputRefused] | None:
    """Where the service's settings name a secret that is among the files that git tracks, and what is to be said."""
    for path, what, place in _secrets(settings):
        inside = _inside(path, root)
        found = tracked.get(inside)
        if found and found.plain:
            return place, InputRefused(
                f"{what} is {inside}, which git tracks: whoever reads the repository reads it",
                remedy=f"git rm --cached {typed(inside)}, name it in .gitignore, commit, and change the secret: "
                "the old one stays in the history",
            )
    return None


def without_given_away(
    wanted: Wanted, root: str, tracked: Mapping[str, File], texts: Mapping[str, bytes], commit: CommitId
) -> Wanted:
    """What is wanted but for the services whose secrets are tracked: their files (`texts` by path) are refused."""
    kept, refused = {}, list(wanted.refused)
    for service, settings in wanted.services.items():
        found = given_away(settings, root, tracked)
        if found is None:
            kept[service] = settings
            continue
        place, error = found
        file = f"services/{service}.toml"
        line = toml_lines.nearest(toml_lines.lines(texts[file].decode()), place)
        refused.append(
            Refusal(file=file, line=line, reason=f"{error.reason} ({error.remedy})", commit=commit)
        )
    return msgspec.structs.replace(wanted, services=kept, refused=refused)


def _inside(path: str, root: str) -> str:
    """The path as git has it; empty for a file that is not in the repository's folder."""
    whole = posixpath.normpath(posixpath.join(root, path))
    return whole.removeprefix(f"{root}/") if whole.startswith(f"{root}/") else ""
