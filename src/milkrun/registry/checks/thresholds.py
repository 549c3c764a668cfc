"""How many results in a row are believed. Pure.

The rule is Consul's, measured on 1.8.7: a warning counts as a success, any success ends a row of failures and
the other way round, and a new check believes its first result at once, whatever the thresholds.
"""

from __future__ import annotations

import msgspec

from milkrun.registry.nouns import CRITICAL, WARNING


class Row(msgspec.Struct, frozen=True):
    """How many successes or failures came in a row; one of the two is 0 once a result came."""

    successes: int = 0
    failures: int = 0


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """How long a row must be. 0 and less mean 1; `before_warning` of 0 means that failures never warn."""

    before_passing: int = 0
    before_warning: int = 0
    before_critical: int = 0

    @property
    def first(self) -> Row:
        """The row of a check that had no result yet: the first one is believed."""
        return Row(max(0, self.before_passing), max(0, self.before_critical))

    def after(self, row: Row, status: str) -> tuple[Row, str | None]:
        """The row with this result, and the status that is believed now; None: not yet, all stays as it was."""
        if status != CRITICAL:
            row = Row(successes=row.successes + 1)
            return row, status if row.successes >= self.before_passing else None
        row = Row(failures=row.failures + 1)
        if row.failures >= self.before_critical:
            return row, CRITICAL
        if self.before_warning > 0 and row.failures >= self.before_warning:
            return row, WARNING
        return row, None
