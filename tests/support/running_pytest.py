"""Pytest in a process of its own, as users run it."""

from __future__ import annotations

import sys

__all__ = ["PYTEST"]

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
"""The command, without the schemathesis plugin, which no test uses and which loads for half a second."""
