"""What a commit's files ask for, and which of them are refused. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import CommitId, Refusal, ServiceName, Wish, service_name
from milkrun.repository import File
from milkrun.settings import deploy, environment, service
from milkrun.settings.environment import Environment
from milkrun.settings.folder import SETTINGS_FILE
from milkrun.settings.service import ServiceSettings
from milkrun.settings.text import FILE_BYTES_AT_MOST

PLACES = (SETTINGS_FILE, "services", "deploy")
"""Where gitsync looks in the repository; it reads nothing else."""

FILES_AT_MOST = 10_000
BYTES_AT_MOST = 64 << 20
"""Of one commit, in these places."""

RESERVED = ServiceName("milkrun")
_T = TypeVar("_T")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What one commit asks for.

    A refused file is neither in its map nor missing: `kept` has the paths whose old state stays in force.
    """

    environment: Environment | None
    services: dict[ServiceName, ServiceSettings]
    wishes: dict[ServiceName, Wish]
    refused: list[Refusal]

    @property
    def kept(self) -> frozenset[str]:
        """The paths of the refused files."""
        return frozenset(refusal.file for refusal in self.refused)


def readable(files: Mapping[str, File]) -> list[File]:
    """The files whose content has to be read: those that `wanted` will not refuse by their looks.

    Raises InputRefused when the commit has more files, or more in them, than is ever read.
    """
    where = f"in {', '.join(PLACES[:-1])} and {PLACES[-1]}"
    if len(files) > FILES_AT_MOST:
        raise InputRefused(f"the commit has {len(files)} files {where}; {FILES_AT_MOST} are the most")
    found = [file for path, file in files.items() if _concerns(path) and file.plain and not _too_long(file)]
    if (size := sum(file.size for file in found)) > BYTES_AT_MOST:
        raise InputRefused(f"the commit's files {where} have {size} bytes; {BYTES_AT_MOST} are the most")
    return found


def wanted(files: Mapping[str, File], contents: Mapping[str, bytes], commit: CommitId) -> Wanted:
    """What the commit's files ask for; `contents` has the readable ones by blob. Never raises for a bad file."""
    reader = _Reader(files, contents, commit)
    settings = reader.read(SETTINGS_FILE, environment.load) if SETTINGS_FILE in files else None
    if SETTINGS_FILE not in files:
        reader.refuse(SETTINGS_FILE, 0, "it is missing, so the settings published before stay")
    services: dict[ServiceName, ServiceSettings] = {}
    wishes: dict[ServiceName, Wish] = {}
    for path in sorted(files):
        folder, _, name = path.partition("/")
        match folder, name.rpartition("."):
            case "services", (stem, ".", "toml"):
                reader.add(services, path, stem, service.load)
            case "deploy", (stem, ".", "json"):
                reader.add(wishes, path, stem, deploy.parse)
            case (("services" | "deploy"), _) if not name:
                reader.refuse(path, 0, "it has to be a folder")
    services = reader.without_circles(services)
    return Wanted(environment=settings, services=services, wishes=wishes, refused=reader.refused)


class _Reader:
    def __init__(self, files: Mapping[str, File], contents: Mapping[str, bytes], commit: CommitId) -> None:
        self._files = files
        self._contents = contents
        self._commit = commit
        self.refused: list[Refusal] = []

    def read(self, path: str, load: Callable[[bytes, str], _T]) -> _T | None:
        """What the file says, or None when it is refused."""
        file = self._files[path]
        if not file.plain:
            self.refuse(path, 0, "it is a link or a submodule, and only plain files are read")
        elif _too_long(file):
            self.refuse(path, 0, f"it has {file.size} bytes; {FILE_BYTES_AT_MOST} is the most")
        else:
            try:
                return load(self._contents[file.blob], path)
            except InputRefused as error:
                remedy = f" ({error.remedy})" if error.remedy else ""
                self.refuse(path, error.line, error.reason + remedy)
        return None

    def add(
        self, known: dict[ServiceName, _T], path: str, stem: str, load: Callable[[bytes, str], _T]
    ) -> None:
        """Adds what the service's file says, or refuses the file."""
        try:
            name = service_name(stem)
        except InputRefused as error:
            self.refuse(
                path, 0, error.reason if "/" not in stem else "it has to stand one folder up to be read"
            )
            return
        if name == RESERVED:
            self.refuse(path, 0, "no service can be called `milkrun`: its keys are milkrun's own")
            return
        said = self.read(path, load)
        if said is not None:
            known[name] = said

    def without_circles(
        self, services: dict[ServiceName, ServiceSettings]
    ) -> dict[ServiceName, ServiceSettings]:
        """The services but those that need one another in a circle: their files are refused."""
        kept = {}
        for name, settings in services.items():
            path = f"services/{name}.toml"
            try:
                service.check_circle(services, name, self._contents[self._files[path].blob], path)
            except InputRefused as error:
                self.refuse(path, error.line, f"{error.reason} ({error.remedy})")
            else:
                kept[name] = settings
        return kept

    def refuse(self, path: str, line: int, reason: str) -> None:
        """The file is refused."""
        self.refused.append(Refusal(file=path, line=line, reason=reason, commit=self._commit))


def _concerns(path: str) -> bool:
    return path == SETTINGS_FILE or path.endswith((".toml", ".json"))


def _too_long(file: File) -> bool:
    return file.size > FILE_BYTES_AT_MOST
