import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent.units.program import Place, arguments, environment
from milkrun.errors import InputRefused
from milkrun.settings.service import ServiceSettings

PLACE = Place(
    service="goat", version="0.0.1", instance="goat-0.0.1-meadow-8101", address="127.0.0.1", port=8101
)


def test_placeholders_are_filled_in():
    command = ["{python}", "-m", "goat", "--listen={address}:{port}", "{service}@{version}", "{instance}"]
    assert arguments(command, PLACE) == [
        sys.executable, "-m", "goat", "--listen=127.0.0.1:8101", "goat@0.0.1", "goat-0.0.1-meadow-8101",
    ]  # fmt: skip


def test_other_braces_stay():
    assert arguments(["{", "{}", "{0}", "{port!r}", "{home}", '{"a": {port}}'], PLACE)[:5] == [
        "{", "{}", "{0}", "{port!r}", "{home}",
    ]  # fmt: skip


def test_what_is_filled_in_is_not_filled_in_again():
    place = Place(service="goat", version="{port}", instance="i", address="127.0.0.1", port=8101)
    assert arguments(["{version}"], place) == ["{port}"]


def test_an_empty_command_is_refused():
    with pytest.raises(InputRefused):
        arguments([], PLACE)


@given(st.lists(st.text(), min_size=1))
def test_as_many_arguments_come_out_as_went_in(command):
    assert len(arguments(command, PLACE)) == len(command)


def test_the_environment_has_no_secrets_and_cannot_be_lied_about():
    inherited = {"PATH": "/bin", "LC_ALL": "C", "CONSUL_HTTP_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "s"}
    settings = ServiceSettings(command=["x"], env={"BREED": "saanen", "MILKRUN_INSTANCE": "another"})
    secrets = {"KEY": "/keys/goat"}
    made = environment(
        inherited, settings, PLACE, secrets, registry="http://127.0.0.1:1", state=Path("/state")
    )
    assert made == {
        "PATH": "/bin", "LC_ALL": "C", "BREED": "saanen", "KEY_FILE": "/keys/goat",
        "PGAPPNAME": "goat/0.0.1/goat-0.0.1-meadow-8101",
        "MILKRUN_SERVICE": "goat",
        "MILKRUN_VERSION": "0.0.1", "MILKRUN_INSTANCE": "goat-0.0.1-meadow-8101",
        "MILKRUN_ADDRESS": "127.0.0.1", "MILKRUN_PORT": "8101", "MILKRUN_STATE": "/state",
        "CONSUL_HTTP_ADDR": "http://127.0.0.1:1",
    }  # fmt: skip
