"""How each way to fail reaches a person and a script. The real program, in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from milkrun.cli import program
from milkrun.cli.place import Place
from milkrun.errors import Conflict, InputRefused, MilkrunError, RegistryUnreachable, TimedOut


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """`milkrun doctor` does what the test gives it."""

    def does(body) -> None:
        @click.command()
        @click.option("--json", is_flag=True)
        def fake(json: bool) -> None:
            body()

        monkeypatch.setattr(program.Program, "get_command", lambda *_: fake)

    return does


def raises(error: BaseException):
    def body() -> None:
        raise error

    return body


def test_every_command_of_the_help_is_there():
    group = program.program
    for name in program.COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MilkrunError("it failed"), 1),
        (Conflict("it failed"), 4),
        (TimedOut("it failed"), 5),
        (RegistryUnreachable("it failed"), 6),
        (InputRefused("it failed"), 8),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [Conflict("it failed")])]), 4),
        (KeyboardInterrupt(), 130),
        (click.exceptions.Exit(7), 7),
    ],
)
def test_the_exit_status_is_the_errors_own(command, capsys: pytest.CaptureFixture[str], error, status):
    command(raises(error))
    assert program.run(["doctor"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert ("milkrun: it failed" in err) is (status not in (7, 130))


def test_an_error_says_what_and_next_and_with_json_an_object_too(command, capsys: pytest.CaptureFixture[str]):
    command(raises(Conflict("port 1 is taken", remedy="kill 2")))
    assert program.run(["doctor", "--json"]) == 4
    out, err = capsys.readouterr()
    assert err == "milkrun: port 1 is taken\n  next: kill 2\n"
    assert json.loads(out) == {
        "schema_version": 1,
        "error": {"code": "conflict", "message": "port 1 is taken", "remedy": "kill 2"},
    }


def test_a_command_typed_wrong_is_2(capsys: pytest.CaptureFixture[str]):
    assert program.run(["status", "--no-such-thing"]) == 2
    assert program.run(["no-such-command"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def milkrun(*arguments: str, here: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "milkrun", *arguments],
        cwd=here,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_environment_is_3_and_says_how_to_make_one(tmp_path: Path):
    done = milkrun("up", here=tmp_path)
    assert done.returncode == 3
    assert "milkrun init" in done.stderr
    done = milkrun("--env", str(tmp_path), "status", here=tmp_path)
    assert done.returncode == 3
    assert "has no milkrun.toml" in done.stderr


def test_a_fault_of_our_own_is_one_line_and_a_file(tmp_path: Path):
    (tmp_path / "milkrun.toml").write_text('name = "x"\n')
    code = "from milkrun.cli import crash, program; crash.install(); program.run = lambda _: 1 / 0; program.run([])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "ZeroDivisionError" in done.stderr.splitlines()[0]
    assert "Traceback" in (tmp_path / ".milkrun" / "crash.log").read_text()


def test_version_and_help_load_nothing_heavy(tmp_path: Path):
    code = (
        "import sys; from milkrun.cli import program; program.run(sys.argv[1:]);"
        "print([name for name in ('aiohttp', 'rich', 'uvicorn', 'structlog', 'asyncio') if name in sys.modules])"
    )
    for flag in ("--version", "--help"):
        done = subprocess.run(
            [sys.executable, "-c", code, flag], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_without_git_no_half_environment_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.run(["init", str(tmp_path / "farm"), "--template", "dairy"]) == 1
    assert "the program git is not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "farm").exists()


def test_a_state_folder_means_the_same_wherever_a_part_changes_to():
    assert Place(None).state_dir(Path("state"), "agent") == Path.cwd() / "state"


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "milkrun", "doctor"],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1
