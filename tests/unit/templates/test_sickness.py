"""What the dairy's goats understand in DAIRY_SICK."""

import importlib.util
import string
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun import templates
from milkrun.settings import service


def _module() -> ModuleType:
    path = Path(templates.__file__).parent / "dairy" / "apps" / "sickness.py"
    spec = importlib.util.spec_from_file_location("dairy_sickness", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


sickness = _module()
WELL = sickness.Sickness()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("errors 5%", {"errors": 0.05}),
        ("errors 0.1%", {"errors": 0.001}),
        ("errors 100%", {"errors": 1.0}),
        ("slow 20ms", {"slow_s": 0.02}),
        ("slow 2s", {"slow_s": 2.0}),
        ("crash after 15s", {"crash_after_s": 15.0}),
        ("crash after 0s", {"crash_after_s": 0.0}),
        ("never healthy", {"unhealthy": True}),
        ("hang on  stop", {"hangs": True}),
        ("wrong answer", {"wrong": True}),
    ],
)
def test_each_sickness_is_that_of_its_version_only(text: str, found: dict[str, object]):
    assert sickness.of("2", f"1: never healthy,\n2: {text} , 3: wrong answer") == sickness.Sickness(**found)
    assert sickness.of("4", f"2: {text}") == sickness.of("4", "") == sickness.of("4", " \n") == WELL


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2: eror 5%", "'eror 5%' is no sickness; there are `errors 5%`"),
        ("2: errors 0%", "over 0% and at most 100%"),
        ("2: errors 101%", "over 0% and at most 100%"),
        ("2: errors 5", "is no sickness"),
        ("2: slow 20", "is no sickness"),
        ("2: slow -1s", "is no sickness"),
        ("2: crash", "is no sickness"),
        ("2:", "is no sickness"),
        ("never healthy", "is not as `0.0.4: errors 5%`"),
        (": never healthy", "is not as `0.0.4: errors 5%`"),
        ("2: never healthy,", "'' is not as"),
        ("2: never healthy, 2: wrong answer", "2 stands there twice"),
    ],
)
def test_what_is_no_sickness_is_refused_whichever_version_asks(text: str, why: str):
    for version in ("1", "2"):
        with pytest.raises(ValueError, match=why.replace("(", r"\(")):
            sickness.of(version, text)


@given(st.text(alphabet=string.ascii_lowercase + string.digits + " :,.%\n", max_size=60))
def test_any_text_is_either_understood_or_refused(text: str):
    try:
        found = sickness.of("1", text)
    except ValueError:
        return
    assert isinstance(found, sickness.Sickness)


def test_the_templates_own_list_is_understood_and_leaves_the_first_versions_well():
    folder = Path(templates.__file__).parent / "dairy" / "services"
    text = service.load((folder / "goat.toml").read_bytes(), "services/goat.toml").env["DAIRY_SICK"]
    assert [sickness.of(f"0.0.{number}", text) == WELL for number in range(1, 10)] == [
        *[True] * 3,
        *[False] * 6,
    ]
    service.load((folder / "farmer.toml").read_bytes(), "services/farmer.toml")
