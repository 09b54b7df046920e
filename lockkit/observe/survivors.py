"""The survivors of an owner: processes that work on after their ``lockkit run`` or task process was killed.

Survivors have inherited LOCKKIT_HELD, which names the claims by claim id. A process is not found if it was
started by hand, dropped or overwrote its environment (``setproctitle`` does), or was forked without a new
program: on the embedded store the pulse keeps its lock all the same; elsewhere its lock lapses after the ttl.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from lockkit.facts import Keeper, Owner
from lockkit.protocol.outer import VARIABLE, outer_holds
from lockkit.values.identity import user_name

__all__ = ["hidden", "program", "survivors"]

_KERNEL = 2
"""The parent of the kernel's own threads, which have no environment."""
_PASSES = 20
"""The most passes over the list of pids: on a busy host there is always a new one."""
_LOOKS, _PAUSE = 250, 0.002
"""The number of looks at a process without an environment, and the seconds between them."""


def survivors(claim_id: str, *, besides: int = 0) -> tuple[Keeper, ...]:
    """Processes of this host that were started under a claim and still run, as far as this user may look.

    Args:
        claim_id: The claim.
        besides: A pid to leave out; this process itself is left out, too.
    """
    found = []
    seen = {os.getpid(), besides}
    # The next pass finds a process forked during this one, perhaps by one that ended before its turn.
    for _ in range(_PASSES):
        new = [pid for pid in _pids() if pid not in seen]
        seen.update(new)
        for pid in new:
            environ = _environ(pid)
            if f'"{claim_id}"'.encode() in environ and _under(environ, claim_id):
                found.append(Keeper(pid, program(pid)))
        if not new:
            break
    return tuple(found)


def _environ(pid: int) -> bytes:
    """The environment of a process; empty if it has ended, or belongs to another user.

    During an execve(2), perhaps long on a busy host, it is empty or cut off: both are looked at again.
    """
    environ = b""
    for _ in range(_LOOKS):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            break
        # proc_pid_stat(5): execve(2) sets the address of the code last; until then environments look empty.
        state, parent, code, start, end = fields[0], *(int(fields[at]) for at in (1, 23, 47, 48))
        if (code and len(environ) == end - start) or state in b"ZXx" or _KERNEL in (pid, parent):
            break
        time.sleep(_PAUSE)
    return environ


def hidden(owner: Owner) -> str:
    """The reason why the processes of an owner's user cannot be looked at from here; empty if they can."""
    if os.geteuid() == 0 or owner.user == user_name(os.geteuid()):
        return ""
    return f"only {owner.user or 'its user'} and root can see whether its processes work on"


def _under(environ: bytes, claim_id: str) -> bool:
    prefix = f"{VARIABLE}=".encode()
    value = next((each[len(prefix) :] for each in environ.split(b"\0") if each.startswith(prefix)), b"[]")
    holds = outer_holds({VARIABLE: value.decode(errors="replace")})
    return any(hold.get("claim_id") == claim_id for hold in holds)


def _pids() -> list[int]:
    try:
        return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 (names, not paths)
    except OSError:
        return []


def program(pid: int) -> str:
    """The name of the program that a process runs; empty if that cannot be seen."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
