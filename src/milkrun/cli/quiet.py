"""Keeps the parts' log lines out of a command's output: the command itself says what matters."""

from __future__ import annotations

import logging

import structlog


def quiet_logs() -> None:
    """Nothing below a critical line is logged by this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
