"""The record of a card in words: its model, its capacity, and how its last holder left it. Pure: no I/O."""

from __future__ import annotations

from lockkit.facts import Record
from lockkit.gpu.enlisting import about
from lockkit.gpu.host_pools import has_cards
from lockkit.gpu.receipts import last_in
from lockkit.lib.printable import printable
from lockkit.notes.members import in_pool
from lockkit.notes.records import fixed_capacity
from lockkit.values.sizes import MIB, show

__all__ = ["record_words"]


def record_words(name: str, record: Record) -> str:
    """The record of a card: ``GPU 0 (NVIDIA H100), 80 GiB for its holders, left clean by ann@box``.

    Empty if the name is not that of a card, or its record says nothing of these. Nobody holds the card: if a
    holder ended without a receipt, the state in which it left the card is unknown.

    Args:
        name: The name of the lock.
        record: The record of that name.
    """
    found = in_pool(name)
    if found is None or found[1] is None or not has_cards(found[0]):
        return ""
    index, model, parent = about(record.value)
    capacity, left = fixed_capacity(record.value), last_in(found[1], record.value, ())
    words = []
    if index >= 0:
        kind = f"slice of GPU {index}" if parent else f"GPU {index}"
        words.append(f"{kind} ({model or 'unknown model'})")
    if capacity:
        words.append(f"{show(capacity * MIB)} for its holders")
    if left is not None:
        words.append(str(left))
    return printable(", ".join(words))
