from __future__ import annotations

import pytest

from milkrun.errors import InputRefused
from milkrun.settings import service


def load(text):
    return service.load(f'command = ["x"]\n[migration]\n{text}'.encode(), "services/ledger.toml")


def test_a_service_says_where_its_database_is():
    found = load('url_file = "secrets/ledger"\ncontract = "after 24h"').migration
    assert (found.url_file, found.contract, found.batch) == ("secrets/ledger", "after 24h", 1000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('url_file = "postgresql://a:b@c/d"', "the URL itself has no place in git"),
        ('url_env = "postgresql://a:b@c/d"', "the name of a variable"),
        ('url_file = "a"\nurl_env = "B"', "exclude one another"),
        ("lock_timeout_ms = 0", "has to be 1 to 10000"),
        ("batch = 0", "has to be 1 to 100000"),
        ('contract = "after a day"', "has to be `by-hand` or as `after 24h`"),
        ("lock_timeout = 1", "unknown key"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text, reason):
    with pytest.raises(InputRefused, match=reason) as caught:
        load(text)
    assert caught.value.line >= 3
