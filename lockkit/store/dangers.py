"""Known dangers of a store when it is opened: ``strict`` refuses unsafe ones, the rest are warnings."""

from __future__ import annotations

from collections.abc import Iterable

from lockkit.errors import BackendUnavailable
from lockkit.facts import Finding
from lockkit.store.spi import Refused

__all__ = ["warnings_of"]


def warnings_of(findings: Iterable[Finding], *, strict: bool, who: str = "") -> list[str]:
    """The warnings for findings that are not ``ok``, for :attr:`~lockkit.store.spi.OpenOptions.warn`.

    Args:
        findings: The results of the store's own checks.
        strict: Whether to refuse the store for a finding that is an ``error``.
        who: The server in question, for the message; empty if the findings name it.

    Raises:
        Refused: ``strict`` is set, and a finding is an error.
    """
    told = []
    for found in findings:
        if found.severity == "ok":
            continue
        text = f"{who}: {found.message}" if who else found.message
        if strict and found.severity == "error":
            raise Refused(BackendUnavailable(f"{text}; strict refuses that", hint=found.hint), retry=False)
        told.append(f"{text} ({found.hint})" if found.hint else text)
    return told
