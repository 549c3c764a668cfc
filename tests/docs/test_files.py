"""Whatever the documents name is there: files, tests, make targets, links, dependencies, variables."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

PAGES = sorted(
    str(path.relative_to(Path(__file__).parents[2]))
    for path in (*Path(__file__).parents[2].glob("*.md"), *Path(__file__).parents[2].glob("docs/*.md"))
)
# A word that starts like a path of the repository, perhaps with the name of a test in it.
WORD = re.compile(r"(?<![\w./~-])((?:src|tests|docs|benchmarks|examples|\.ci)/[\w./-]*)(?:::(\w+))?")
ROOMS = (
    "host",
    *("registry", "agent", "router", "gitsync", "rollout", "load"),
    *("up", "overview", "cli", "consul", "settings", "repository", "testing"),
)


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/invariants.md"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_each_path_is_there_and_each_test_is_in_its_file(root, page, name):
    missing = []
    for path, test in WORD.findall(page(name)):
        file = root / path.rstrip(".")
        if not file.exists() or (test and not re.search(rf"\bdef {test}\b", file.read_text())):
            missing.append(f"{path}::{test}")
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_each_link_leads_somewhere(root, page, name):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page(name))
    here = (root / name).parent
    assert [link for link in links if "://" not in link and not (here / link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_each_make_target_is_there(page, name):
    targets = re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE)
    assert set(re.findall(r"(?:`|^\s*|\$ )make ([a-z]+)", page(name), re.MULTILINE)) - set(targets) == set()


def test_each_make_target_is_told(page):
    targets = re.findall(r"^\.PHONY: (.+)$", page("Makefile"), re.MULTILINE)[0].split()
    assert [name for name in targets if f"make {name}" not in page("CONTRIBUTING.md")] == []


@pytest.mark.parametrize("room", ROOMS)
def test_each_file_of_a_room_is_told_and_no_other(root, page, section, rows, room):
    home = root / "src" / "milkrun" / room
    heading = f"The {room}" if room in ("host", "registry", "agent", "router") else room
    text = section(page("docs/architecture.md"), heading)
    told = [row[0].strip("`") for row in rows(text)[1:] if row[0].endswith(".py`")]
    there = [str(path.relative_to(home)) for path in home.rglob("*.py") if path.name != "__init__.py"]

    assert sorted(told) == sorted(there)


def test_each_dependency_has_its_row_and_no_other(page, section, rows):
    project = tomllib.loads(page("pyproject.toml"))
    name = re.compile(r"[A-Za-z0-9._-]+")
    asked = {
        "At run time": project["project"]["dependencies"],
        "With the extra envoy": project["project"]["optional-dependencies"]["envoy"],
        "With the extra postgres": project["project"]["optional-dependencies"]["postgres"],
        "For development": project["dependency-groups"]["dev"],
    }
    for heading, packages in asked.items():
        table = rows(section(page("docs/dependencies.md"), heading))[1:]
        assert {row[0].strip("`") for row in table} == {name.match(text)[0] for text in packages}
        assert [row[0] for row in table if not all(row)] == []


def test_each_environment_variable_is_told(root, page):
    source = "\n".join(path.read_text() for path in (root / "src").rglob("*.py"))
    read = set(re.findall(r"\"((?:MILKRUN|CONSUL)_[A-Z_]+[A-Z])\"", source)) | {"NO_COLOR"}
    told = set(re.findall(r"`([A-Z][A-Z_]+)`", page("docs/operating.md")))

    assert read - told == set()


def test_no_page_names_a_package_index(page):
    assert [name for name in PAGES if re.search(r"pypi\.org|/simple\b|index-url", page(name))] == []


def test_the_version_is_told_as_it_is(page):
    version = tomllib.loads(page("pyproject.toml"))["project"]["version"]
    assert f"milkrun {version}" in page("docs/cli.md")


def test_the_licence_is_whole(page):
    text = page("LICENSE")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_pages_are_files_of_the_repository(root):
    known = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if known.returncode == 0:  # an unpacked source distribution is no repository
        assert set(PAGES) - set(known.stdout.split()) == set()
