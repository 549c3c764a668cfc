"""What `[migration]` in `services/<name>.toml` says: where the service's database is, and how gently it is changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from milkrun.settings.service import ServiceSettings
    from milkrun.settings.toml import Document

Phase = Literal["expand", "backfill", "verify", "contract", "undo"]
PHASES: tuple[Phase, ...] = ("expand", "backfill", "verify", "contract", "undo")

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_CONTRACT = re.compile(r"by-hand|after (?P<count>[1-9]\d{0,3})(?P<unit>[mhd])")


class MigrationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A PostgreSQL database that rollouts migrate: its URL is in the file `url_file`, or in the variable `url_env`, of
    whoever runs the engine. Without either, the service has none.

    A statement waits `lock_timeout_ms` for its locks and is tried again for `lock_budget_s` in all; with its locks it
    may take `statement_limit_ms`. A backfill goes by `batch` rows, fewer while a limit below is passed (0: not looked
    at). `contract` is `by-hand`, or `after 24h` from the end of the rollout.
    """

    url_file: str = ""
    url_env: str = ""
    lock_timeout_ms: int = 100
    lock_budget_s: float = 600.0
    statement_limit_ms: int = 5000
    batch: int = 1000
    p99_ms_at_most: float = 0.0
    replica_lag_s_at_most: float = 10.0
    dead_rows_at_most: int = 0
    contract: str = "by-hand"

    @property
    def named(self) -> bool:
        """Whether the service has a database."""
        return bool(self.url_file or self.url_env)

    @property
    def contract_s(self) -> float | None:
        """How long after the rollout's end the contract begins by itself, in seconds; None: by hand."""
        found = _CONTRACT.fullmatch(self.contract)
        if not found or not found["count"]:
            return None
        return int(found["count"]) * {"m": 60.0, "h": 3600.0, "d": 86_400.0}[found["unit"]]


def check(document: Document[ServiceSettings]) -> None:
    """Refuses what cannot be meant, with its line."""
    migration = document.value.migration
    document.require(
        ("migration", "url_env"),
        not (migration.url_file and migration.url_env),
        "and `url_file` exclude one another",
    )
    document.require(
        ("migration", "url_file"), "://" not in migration.url_file,
        "is the path of a file with the URL in it: the URL itself has no place in git",
    )  # fmt: skip
    document.require(
        ("migration", "url_env"), not migration.url_env or bool(_VARIABLE.fullmatch(migration.url_env)),
        "is the name of a variable with the URL in it, as `LEDGER_URL`",
    )  # fmt: skip
    for name, least, most in (
        ("lock_timeout_ms", 1, 10_000),
        ("lock_budget_s", 0, 86_400),
        ("statement_limit_ms", 100, 600_000),
        ("batch", 1, 100_000),
        ("p99_ms_at_most", 0, 60_000),
        ("replica_lag_s_at_most", 0, 86_400),
        ("dead_rows_at_most", 0, 10**12),
    ):
        value = getattr(migration, name)
        document.require(
            ("migration", name), least <= value <= most, f"has to be {least} to {most}, not {value:g}"
        )
    _together(document)
    document.require(
        ("migration", "contract"),
        bool(_CONTRACT.fullmatch(migration.contract)),
        "has to be `by-hand` or as `after 24h`",
    )


def _together(document: Document[ServiceSettings]) -> None:
    """Refuses limits of which one makes another void."""
    migration = document.value.migration
    # PostgreSQL counts the wait for a lock as the statement's: it would end as if it had its locks and was too slow.
    document.require(
        ("migration", "lock_timeout_ms"), migration.lock_timeout_ms < migration.statement_limit_ms,
        f"has to be below `statement_limit_ms`, {migration.statement_limit_ms}: a wait for a lock counts too",
    )  # fmt: skip
    document.require(
        ("migration", "lock_budget_s"),
        migration.lock_budget_s == 0 or migration.lock_budget_s * 1000 >= migration.lock_timeout_ms,
        f"has to be 0 (one try) or at least `lock_timeout_ms`, {migration.lock_timeout_ms}, in seconds",
    )
