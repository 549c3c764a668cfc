import tomllib
from pathlib import Path

import msgspec
import pytest

from milkrun import templates
from milkrun.errors import Conflict, MilkrunError, NotFound
from milkrun.model import host_port, service_name
from milkrun.settings.environment import Environment
from milkrun.settings.service import ServiceSettings


@pytest.fixture
def dairy(tmp_path: Path) -> Path:
    templates.create(tmp_path / "farm", "dairy")
    return tmp_path / "farm"


def test_the_dairy_farm_is_a_complete_environment(dairy: Path):
    found = sorted(str(path.relative_to(dairy)) for path in dairy.rglob("*") if path.is_file())
    assert found == [
        ".gitignore",
        "README.md",
        "apps/farmer.py",
        "apps/goat.py",
        "apps/sickness.py",
        "deploy/farmer.json",
        "deploy/goat.json",
        "milkrun.toml",
        "services/farmer.toml",
        "services/goat.toml",
    ]
    assert ".milkrun/" in (dairy / ".gitignore").read_text()


@pytest.mark.parametrize("template", templates.names())
def test_each_environment_file_says_what_the_settings_know(tmp_path: Path, template: str):
    templates.create(tmp_path / "new", template)
    document = tomllib.loads((tmp_path / "new" / "milkrun.toml").read_text())
    environment = msgspec.convert(document, Environment)
    for router in environment.routers.values():
        assert (tmp_path / "new" / "services" / f"{service_name(router.service)}.toml").exists()
        host_port(router.listen)
        host_port(router.stats)


def test_the_farms_ports_are_the_documented_ones(dairy: Path):
    environment = msgspec.convert(tomllib.loads((dairy / "milkrun.toml").read_text()), Environment)
    assert environment.registry.http == "127.0.0.1:8500"
    assert environment.registry.dns == "127.0.0.1:8600"
    routers = {name: (router.listen, router.stats) for name, router in environment.routers.items()}
    assert routers == {
        "lb-goat": ("127.0.0.1:8202", "127.0.0.1:8404"),
        "lb-farmer": ("127.0.0.1:8212", "127.0.0.1:8414"),
    }


def test_each_service_has_its_app_and_its_needs(dairy: Path):
    services = {
        path.stem: msgspec.convert(tomllib.loads(path.read_text()), ServiceSettings)
        for path in (dairy / "services").glob("*.toml")
    }
    assert services.keys() == {path.stem for path in (dairy / "deploy").glob("*.json")} == {"goat", "farmer"}
    assert services["farmer"].needs == ["goat"]
    for settings in services.values():
        assert settings.command[0] == "{python}"
        assert (dairy / settings.command[1]).is_file()


def test_a_folder_with_anything_in_it_is_refused_and_stays_as_it_was(tmp_path: Path):
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(Conflict, match="not an empty folder"):
        templates.create(tmp_path, "dairy")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(Conflict):
        templates.create(tmp_path / "mine", "dairy")


def test_an_empty_folder_is_filled(tmp_path: Path):
    templates.create(tmp_path, "blank")
    assert (tmp_path / "milkrun.toml").is_file()
    assert (tmp_path / ".gitignore").is_file()


@pytest.mark.parametrize("name", ["cheese", "", ".", "..", "dairy/apps", "__pycache__"])
def test_an_unknown_template_is_not_found_and_the_known_ones_are_named(tmp_path: Path, name: str):
    with pytest.raises(NotFound, match="there are: blank, dairy") as caught:
        templates.create(tmp_path / "new", name)
    assert "--template dairy" in caught.value.remedy
    assert not (tmp_path / "new").exists()


def test_a_path_through_a_file_is_an_error_a_person_can_act_on(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MilkrunError, match="cannot be written"):
        templates.create(tmp_path / "file" / "new", "dairy")
