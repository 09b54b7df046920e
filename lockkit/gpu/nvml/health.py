"""The health of one of NVIDIA's cards: its counters in words, and the Xids that are no fault of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["LOST", "faults_of", "harmless_xid"]

LOST = "the card has fallen off the bus (GPU is lost): restart the host"

# Numbers of NVML's fields, because old versions of pynvml lack some of the names.
_ECC, _PENDING, _FAILURE, _RECOVERY = 4, 144, 145, 230

_RECOVERIES: Mapping[int, str] = {
    1: "the driver asks for a reset of the card",
    2: "the driver asks for a restart of the host",
    3: "the driver asks to end what uses the card's links to other cards",
    4: "the driver asks to end what runs on the card, and then for a reset",
    5: "the driver asks for a recovery of the IMEX domain",
    6: "the driver asks for a reset of the bus",
    7: "the driver asks for a restart of the system",
}
_APPLICATION = frozenset((13, 31, 43, 45, 68, 109))
"""Xids that report a fault of a program, such as an invalid address. NVIDIA's device plugin for Kubernetes
ignores the same ones."""


def harmless_xid(number: int) -> bool:
    """Whether an Xid says nothing about the health of the card."""
    return number in _APPLICATION


def faults_of(handle: Any, ask: Callable[..., Any]) -> list[str]:
    """The faults of a card, a sentence each.

    Args:
        handle: NVML's handle of the card.
        ask: Performs one call of NVML, by name; None if the card does not answer it.
    """
    fields = ask("nvmlDeviceGetFieldValues", handle, [_RECOVERY, _ECC, _PENDING, _FAILURE])
    recovery, errors, pending, failure = map(_value, fields) if fields is not None else (None,) * 4
    if errors is None:
        errors = ask("nvmlDeviceGetTotalEccErrors", handle, 1, 0)
    if pending is None or failure is None:
        rows = ask("nvmlDeviceGetRemappedRows", handle)
        if rows is not None:
            pending, failure = rows[2], rows[3]
    found = [_RECOVERIES.get(recovery, f"the driver asks for recovery {recovery}")] if recovery else []
    if errors:
        found.append(
            f"{errors} memory {'error' if errors == 1 else 'errors'}"
            " could not be corrected since the driver was loaded"
        )
    if pending:
        found.append("rows of its memory wait to be replaced by spare ones: the card must be reset")
    if failure:
        found.append("rows of its memory could not be replaced by spare ones: the card must be exchanged")
    return found


def _value(field: Any) -> int | None:
    """The number in one of NVML's fields; None if the card has no such field."""
    if field.nvmlReturn != 0:
        return None
    value = field.value
    numbers = {1: value.uiVal, 2: value.ulVal, 3: value.ullVal, 4: value.sllVal, 5: value.siVal}
    return numbers.get(field.valueType)
