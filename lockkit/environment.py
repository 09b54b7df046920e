"""Environment variables of this process that are set for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["environment_set"]

Variables = TypeVar("Variables", bound=Mapping[str, str | None])


@contextmanager
def environment_set(variables: Variables) -> Iterator[Variables]:
    """Set environment variables of this process, remove those whose value is None, and put all back at the end."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield variables
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if os.environ.get(name) == value:
            continue
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
