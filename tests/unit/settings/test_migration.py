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
        ("lock_timeout_ms = 5000", "lock_timeout_ms: has to be below `statement_limit_ms`, 5000: a wait"),
        ("lock_timeout_ms = 200\nstatement_limit_ms = 150", "has to be below `statement_limit_ms`, 150"),
        ("lock_timeout_ms = 2000\nlock_budget_s = 1.5", "lock_budget_s: has to be 0 .one try. or at least"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text, reason):
    with pytest.raises(InputRefused, match=reason) as caught:
        load(text)
    assert caught.value.line >= 3


def test_limits_that_go_together_are_taken():
    found = load("lock_timeout_ms = 200\nstatement_limit_ms = 201\nlock_budget_s = 0.2").migration
    assert (found.lock_timeout_ms, found.statement_limit_ms, found.lock_budget_s) == (200, 201, 0.2)
    assert load("lock_budget_s = 0").migration.lock_budget_s == 0
