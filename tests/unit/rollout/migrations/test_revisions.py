from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.lint import lint
from milkrun.rollout.migrations.revisions import script

FILE = "alembic upgrade base:b2 --sql"
WRITTEN = b"""BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> a1

ALTER TABLE bottles ADD COLUMN goat TEXT;

INSERT INTO alembic_version (version_num) VALUES ('a1') RETURNING alembic_version.version_num;

COMMIT;

CREATE INDEX CONCURRENTLY bottles_goat ON bottles (goat);

BEGIN;

UPDATE alembic_version SET version_num='b2' WHERE alembic_version.version_num = 'a1';

COMMIT;

"""


def test_transactions_are_left_out_and_lines_stay():
    found, text = script(WRITTEN, FILE)
    assert [(one.line, one.keys[0]) for one in found.statements] == [
        (3, "create"),
        (10, "alter"),
        (12, "insert"),
        (16, "create"),
        (20, "update"),
    ]
    assert text.count(b"\n") == WRITTEN.count(b"\n")
    assert b"BEGIN" not in text
    assert b"COMMIT" not in text
    assert lint(found, "expand") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bottles SET goat = name",
        "UPDATE alembic_version SET version_num='b2'",
        "UPDATE alembic_versions SET version_num='b2' WHERE alembic_versions.version_num = 'a1'",
        "UPDATE alembic_version SET version_num='b2' WHERE alembic_version.version_num = 'a1' OR true",
        "UPDATE alembic_version SET version_num=(SELECT 'a') WHERE alembic_version.version_num = 'a1'",
        "INSERT INTO alembic_version (version_num) VALUES ('a1'), ('b2')",
        "INSERT INTO alembic_version (version_num) SELECT 'a1'",
        "DELETE FROM alembic_version",
        "DELETE FROM bottles WHERE bottles.version_num = 'a1'",
        "WITH x AS (DELETE FROM b) UPDATE alembic_version SET version_num='b' WHERE alembic_version.version_num = ''",
    ],
)
def test_only_alembics_own_statements_may_change_rows(statement):
    found, _ = script(WRITTEN + statement.encode() + b";\n", FILE)
    (finding,) = lint(found, "expand")
    assert (finding.rule, finding.file, finding.line) == ("data", FILE, 24)


@pytest.mark.parametrize(
    "nothing",
    [
        b"",
        b"BEGIN;\n\nCOMMIT;\n",
        b"BEGIN;\nDELETE FROM alembic_version WHERE alembic_version.version_num = 'a1';\nCOMMIT;",
    ],
)
def test_revisions_with_nothing_between_are_refused(nothing):
    with pytest.raises(InputRefused, match="nothing between these two revisions"):
        script(nothing, FILE)


def test_a_pair_of_columns_can_be_asked_for():
    found, _ = script(b"-- milkrun: sync table=bottles old=name new=goat\nSELECT 1;\n", FILE)
    assert [one.values["new"] for one in found.syncs] == ["goat"]


@given(
    st.lists(
        st.sampled_from(
            ["BEGIN", "COMMIT", "begin", "SELECT 'BEGIN;'", "SELECT 1 -- COMMIT", 'ALTER TABLE "COMMIT" ADD x int']
        ),
        max_size=12,
    )
)  # fmt: skip
def test_all_other_statements_stay_as_they_are(statements):
    text = "".join(f"{each}\n;\n" if "--" in each else f"{each};\n" for each in statements).encode()
    wanted = [each.partition(" --")[0] for each in statements if each.lower() not in ("begin", "commit")]
    try:
        found, _ = script(text, FILE)
    except InputRefused:
        assert not wanted
    else:
        assert [one.text for one in found.statements] == wanted
