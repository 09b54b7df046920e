"""The lease of a ``lockkit run``, or of a task, around this process, for the gates of the program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from lockkit.errors import ConfigError, NotHeld
from lockkit.protocol.outer import outer_holds
from lockkit.store.queue import excludes_all

__all__ = ["RunLease", "run_lease"]


class RunLease(NamedTuple):
    """The lease of a ``lockkit run`` or task around a program; see :class:`~lockkit.guard.FencedLease`.

    On a loss ``lockkit run`` ends its command, and a task goes on: only the resource refuses late writes.

    Attributes:
        name: The name of the lock.
        fence: The fencing token.
        exclusive: Whether the lock has no second holder at the same time.
    """

    name: str
    fence: int
    exclusive: bool

    def ensure_held(self) -> None:
        """Do nothing: the process that started this program renews the lease."""


def run_lease(name: str | None = None) -> RunLease:
    """The lease of the ``lockkit run``, or of the Celery task, that has started this program.

    Args:
        name: The name of the lock; None for the innermost ``run`` or task, also if its lock is reused.

    Raises:
        NotHeld: No ``lockkit run`` or task is around this process, or none with this lock.
        ConfigError: No name, and the innermost one has several locks, whose fences cannot be compared.
    """
    wanted = _only_name(os.environ) if name is None else name
    for hold in reversed(outer_holds(os.environ)):
        fence = hold.get("fence")
        if hold.get("name") == wanted and isinstance(fence, int) and not isinstance(fence, bool):
            whole = excludes_all(hold.get("kind"), hold.get("weight"), hold.get("capacity"))
            return RunLease(str(wanted), fence, whole)
    what = "a lock" if name is None else f"{name!r}"
    raise NotHeld(
        f"no lockkit run or task that holds {what} is around this process",
        name=name,
        hint=f"start it so: lockkit run {name or 'NAME'} -- COMMAND",
    )


def _only_name(environ: Mapping[str, str]) -> str | None:
    """The name of the one lock of the innermost ``run`` or task; None if there is none.

    LOCKKIT_HELD's last entry may be one of several, or, under ``--nested reuse``, that of another lock.

    Raises:
        ConfigError: The innermost one has several locks, or the environment does not show its own.
    """
    held = [str(hold.get("name")) for hold in outer_holds(environ)]
    own = environ.get("LOCKKIT_LEASE_NAMES", "").splitlines() or held
    if len(own) > 1:
        raise ConfigError(
            f"the lockkit run or task around this process has several locks: {', '.join(map(repr, own))}",
            hint=f"name the one that guards the resource: run_lease({own[0]!r})",
        )
    return own[0] if own else None
