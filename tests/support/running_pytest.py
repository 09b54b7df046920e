"""Pytest in a process of its own, as users run it."""

from __future__ import annotations

import sys

__all__ = ["PYTEST"]

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
"""The command. The plugin of schemathesis would be loaded in each such process, which takes half a second, and no test uses it."""
