"""PostgreSQL itself says where statements end."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milkrun.rollout.migrations.script import parse

pytestmark = pytest.mark.needs("postgres")

LITERALS = st.sampled_from([
    "'a;b'", "'it''s;'", r"E'\';'", r"'\'", "$$;$$", "$q$ ; $$ $q$", "$a_1$;$a$;$a_1$", "U&'d;'", "B'01'", "N'x;'",
    "'one'\n';two'", "'one' -- c;\n  ';two'", "E'one'\n'\\';'", "(select 1) /* ; /* ' */ ; */",
    "(select 1) -- ; ' $$\n",
    "(select 1 as a$b$c)", '(select 1 as "x;""y")', "1::int", "(array[1,2])[1:2]", "e'\\\\'", "x'1F'",
    "1e3", "-1", "'é;'",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.lists(LITERALS, min_size=1, max_size=4), min_size=1, max_size=5))
def test_the_statements_are_those_that_postgresql_runs(cluster, parts):
    script = ";".join("select " + " , ".join(part) for part in parts)
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        cursor = connection.execute(script.encode())
        whole = [cursor.fetchall()]
        while cursor.nextset():
            whole.append(cursor.fetchall())
        ours = [
            connection.execute(each.text.encode()).fetchall()
            for each in parse(script.encode(), "x.sql").statements
        ]
    assert ours == whole
