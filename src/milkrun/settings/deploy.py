"""What `deploy/<service>.json` says: each version's weight and how many instances of it run.

    { "version=0.0.1": {"weight": 80, "replicas": 2},
      "version=0.0.2": {"weight": 20, "replicas": 1} }

`"maintenance": true` beside the versions allows all weights to be zero.
"""

from __future__ import annotations

import json
from typing import NoReturn

from milkrun.errors import InputRefused, NotFound
from milkrun.model import VERSIONS_AT_MOST, VersionName, VersionWish, Wish, version_name
from milkrun.settings import json_tree
from milkrun.settings.json_tree import Member, Node
from milkrun.settings.text import did_you_mean, shown

WEIGHT_AT_MOST = 1e15
REPLICAS_AT_MOST = 1000

_VERSION = "version="
_MAINTENANCE = "maintenance"


def parse(data: bytes, file: str) -> Wish:
    """The wish that the file states, without a mark. Raises InputRefused with the file and the line."""
    return _Judge(file).wish(json_tree.read(data, file))


def change_weights(data: bytes, weights: dict[VersionName, float], file: str) -> bytes:
    """The file's text with these weights; its order, its replicas and its other versions stay as they are.

    Raises NotFound for a version that has no line in the file, InputRefused when the old text or the new one
    is not a wish that can be followed.
    """
    try:
        tree = json_tree.read(data, file)
        known = list(_Judge(file).wish(tree).versions)
    except InputRefused as error:
        remedy = error.remedy or f"mend {file} and commit; its weights can be changed then"
        raise InputRefused(error.reason, file=error.file, line=error.line, remedy=remedy) from error
    for version, weight in weights.items():
        if weight > WEIGHT_AT_MOST:
            raise InputRefused(f"a weight of {weight:g} is too large; {WEIGHT_AT_MOST:g} is the most")
        if version not in known:
            raise NotFound(
                f"{file} has no version {version}; it has {', '.join(known) or 'none'}",
                remedy=f'add `"version={version}": {{"weight": 0, "replicas": 1}}` to {file} and commit it',
            )
    content = tree.plain()
    assert isinstance(content, dict)  # noqa: S101 (it was just judged to be one)
    for version, weight in weights.items():
        content[_VERSION + version]["weight"] = weight
    for entry in content.values():
        if isinstance(entry, dict) and "weight" in entry:
            entry["weight"] = plain_number(entry["weight"])
    changed = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
    parse(changed, file)
    return changed


def written(wish: Wish) -> bytes:
    """The file's text that says this wish, versions in their order; `parse` reads it back."""
    content: dict[str, object] = {}
    for version, each in wish.versions.items():
        fields = {
            "weight": None if each.weight is None else plain_number(each.weight),
            "replicas": each.replicas,
        }
        content[_VERSION + version] = {name: value for name, value in fields.items() if value is not None}
    if wish.maintenance:
        content[_MAINTENANCE] = True
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def plain_number(number: float) -> float:
    """The number as an integer when it is one, so that it prints as `80` and not as `80.0`."""
    return int(number) if number == number // 1 else number


class _Judge:
    def __init__(self, file: str) -> None:
        self._file = file

    def wish(self, tree: Node) -> Wish:
        if not isinstance(tree.value, dict):
            self._refuse(tree.line, f"the file has to be an object, not {_kind(tree)}")
        versions: dict[VersionName, VersionWish] = {}
        maintenance = False
        for key, member in tree.value.items():
            if key == _MAINTENANCE:
                maintenance = self._flag(member)
            else:
                version = self._version(key, member.line)
                versions[version] = self._version_wish(key, member)
            if len(versions) > VERSIONS_AT_MOST:
                self._refuse(member.line, f"more than {VERSIONS_AT_MOST} versions of one service")
        wish = Wish(versions=versions, maintenance=maintenance)
        if wish.weights and not any(wish.weights.values()) and not maintenance:
            self._refuse(
                self._weight_lines(tree.value)[0],
                "all weights are zero, so nobody would be served",
                remedy='if that is meant, add `"maintenance": true` beside the versions',
            )
        return wish

    def _weight_lines(self, members: dict[str, Member]) -> list[int]:
        return [
            member.node.value["weight"].node.line
            for member in members.values()
            if isinstance(member.node.value, dict) and "weight" in member.node.value
        ]

    def _version(self, key: str, line: int) -> VersionName:
        if not key.startswith(_VERSION):
            word, _, rest = key.rpartition("=")
            meant = _VERSION + (rest if word else key)
            near = did_you_mean(key, [meant, _MAINTENANCE])
            if not near and key[:1].isdigit():
                near = f" (did you mean {shown(meant)}?)"
            self._refuse(line, f"unknown key {shown(key)}{near}")
        try:
            return version_name(key.removeprefix(_VERSION))
        except InputRefused as error:
            self._refuse(line, error.reason, remedy=error.remedy)

    def _version_wish(self, key: str, member: Member) -> VersionWish:
        fields = member.node.value
        if not isinstance(fields, dict):
            self._refuse(
                member.node.line,
                f'{shown(key)} has to be like {{"weight": 80, "replicas": 2}}, not {_kind(member.node)}',
            )
        if not fields:
            self._refuse(member.node.line, f"{shown(key)} has neither a weight nor replicas")
        weight: float | None = None
        replicas: int | None = None
        for name, field in fields.items():
            match name:
                case "weight":
                    weight = self._weight(field.node)
                case "replicas":
                    replicas = self._replicas(field.node)
                case _:
                    known = ("weight", "replicas")
                    self._refuse(field.line, f"unknown key {shown(name)}{did_you_mean(name, known)}")
        return VersionWish(weight=weight, replicas=replicas)

    def _weight(self, node: Node) -> float:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(node.line, f"a weight has to be a number from 0 up, not {_kind(node)}")
        if value < 0:
            self._refuse(node.line, f"a weight has to be a number from 0 up, not {value}")
        if value > WEIGHT_AT_MOST:
            self._refuse(node.line, f"a weight of {value:g} is too large; {WEIGHT_AT_MOST:g} is the most")
        return float(value) + 0.0  # a minus zero becomes a zero

    def _replicas(self, node: Node) -> int:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(node.line, f"replicas have to be a whole number, not {_kind(node)}")
        if not 0 <= value <= REPLICAS_AT_MOST:
            self._refuse(node.line, f"replicas have to be 0 to {REPLICAS_AT_MOST}, not {value}")
        return value

    def _flag(self, member: Member) -> bool:
        if not isinstance(member.node.value, bool):
            self._refuse(member.node.line, f"maintenance has to be true or false, not {_kind(member.node)}")
        return member.node.value

    def _refuse(self, line: int, reason: str, *, remedy: str = "") -> NoReturn:
        raise InputRefused(reason, file=self._file, line=line, remedy=remedy)


def _kind(node: Node) -> str:
    match node.value:
        case None:
            return "null"
        case bool():
            return "true" if node.value else "false"
        case str():
            return f"the text {shown(node.value)}"
        case int() | float():
            return f"the number {node.value}"
        case list():
            return "a list"
        case dict():
            return "an object"
