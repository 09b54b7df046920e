"""Servers that are started together and go together."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TypeVar

__all__ = ["Group"]

_Self = TypeVar("_Self", bound="Group")


class Group:
    """Ends what was entered into it; a context manager."""

    def __init__(self) -> None:
        self._servers = contextlib.ExitStack()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all of them and remove their folders."""
        self._servers.close()
