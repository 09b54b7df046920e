"""Run a list of requests on several threads: one thread would need as many round trips as there are requests."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lockkit.store.budgets import left

__all__ = ["together"]


def together(
    work: Callable[[], object], many: int, thread: str, end: float, *, own: Callable[[], object] | None = None
) -> None:
    """Run ``work`` on ``many`` threads, this one among them, and wait for the others, but not beyond an end.

    Args:
        work: Takes requests from the list until none is left.
        many: Threads in all; fewer run if there can be no more.
        thread: The name of the others.
        end: When ``time.monotonic()`` is too late to wait for them.
        own: Run in this thread in place of ``work``.
    """
    others: list[threading.Thread] = []
    for _ in range(many - 1):
        other = threading.Thread(target=work, name=thread, daemon=True)
        try:
            other.start()
        except RuntimeError:  # the process can start no more threads
            break
        others.append(other)
    (own or work)()
    for other in others:
        other.join(left(end))
