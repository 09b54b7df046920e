"""The lease of a ``lockkit run`` around this process, for the gates of its command."""

from __future__ import annotations

import os
from typing import NamedTuple

from lockkit.errors import NotHeld
from lockkit.outer import outer_holds
from lockkit.store.queue import excludes_all

__all__ = ["RunLease", "run_lease"]


class RunLease(NamedTuple):
    """The lease of a ``lockkit run``, as its command knows it; see :class:`~lockkit.guard.FencedLease`.

    The command is ended when the lock is lost, and asks nobody. So only the resource refuses what comes too late.

    Attributes:
        name: The name of the lock.
        fence: The fencing token.
        exclusive: Whether the lock has no second holder at the same time.
    """

    name: str
    fence: int
    exclusive: bool

    def ensure_held(self) -> None:
        """Do nothing: the wrapper renews the lease, and ends this command if it is lost."""


def run_lease(name: str | None = None) -> RunLease:
    """The lease of the ``lockkit run`` that has started this program.

    Args:
        name: The name of the lock; None for that of the innermost ``run``.

    Raises:
        NotHeld: No ``lockkit run`` is around this process, or none with this lock.
    """
    for hold in reversed(outer_holds(os.environ)):
        fence = hold.get("fence")
        if name in (None, hold.get("name")) and isinstance(fence, int):
            whole = excludes_all(hold.get("kind"), hold.get("weight"), hold.get("capacity"))
            return RunLease(str(hold.get("name")), fence, whole)
    what = "a lock" if name is None else f"{name!r}"
    raise NotHeld(
        f"no lockkit run that holds {what} is around this process",
        name=name,
        hint=f"start it so: lockkit run {name or 'NAME'} -- COMMAND",
    )
