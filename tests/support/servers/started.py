"""Fixtures that start a server for all tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest

__all__ = ["started"]

S = TypeVar("S")


def started(server: Callable[..., AbstractContextManager[S]], **options: Any) -> Callable[[], Iterator[S]]:
    """A fixture: a server that runs while the tests of a file run.

    The fixture has the name that the file gives it: ``server = started(EtcdServer)``.

    Args:
        server: The kind of server.
        options: What it is made with.
    """

    @pytest.fixture(scope="module")
    def running() -> Iterator[S]:
        with server(**options) as made:
            yield made

    return running
