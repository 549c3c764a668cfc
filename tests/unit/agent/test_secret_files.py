import pytest

from milkrun.agent.units.secret_files import resolved
from milkrun.errors import InputRefused


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "key"
    path.write_text("hay")
    path.chmod(0o600)
    return path


def test_a_relative_path_is_in_the_environments_folder(secret, tmp_path):
    assert resolved({"KEY": "key", "SAME": str(secret)}, tmp_path) == {
        "KEY": str(secret),
        "SAME": str(secret),
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_use_is_not_given_out(secret, tmp_path, mode):
    secret.chmod(mode)
    with pytest.raises(InputRefused, match=f"others may read it \\(mode {mode:04o}\\)") as refused:
        resolved({"KEY": "key"}, tmp_path)
    assert refused.value.remedy == f"chmod 600 {secret}"
    assert "hay" not in str(refused.value)


@pytest.mark.parametrize(("name", "why"), [("none", "no such file"), (".", "no plain file")])
def test_what_is_no_file_is_not_given_out(tmp_path, name, why):
    with pytest.raises(InputRefused, match=why):
        resolved({"KEY": name}, tmp_path)
