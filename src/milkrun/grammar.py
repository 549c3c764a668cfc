"""What of a request may be named in settings, as patterns: read with them, and checked again before HAProxy is told.

They are text, for some are a part of a longer one. Match them whole.
"""

from __future__ import annotations

SEGMENTS = r"(?:/[A-Za-z0-9._~-]{1,100}){1,20}"
"""A path of whole segments, without an end slash."""
METHOD = r"[A-Z]{1,20}"
HEADER = r"[A-Za-z0-9-]{1,60}"
HEADER_VALUE = r"[A-Za-z0-9._~/+=:@-]{1,200}"
COOKIE = r"[A-Za-z0-9_.-]{1,60}"
