"""Stores that a forked child has from its parent, and must not use."""

from __future__ import annotations

from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Refused

__all__ = ["inherited"]


def inherited(where: str) -> Refused:
    """The refusal for a forked child that uses its parent's store: the connections are the parent's."""
    hint = "a forked child calls lockkit.connect() for itself"
    return Refused(BackendUnavailable(f"{where} is not open in this process", hint=hint), retry=False)
