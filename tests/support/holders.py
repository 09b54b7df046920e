"""Processes that hold a lock, for the tests of what happens to them."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["AT_ONCE", "HOLD", "ask", "runs"]

AT_ONCE = 4
"""Seconds that a slow machine may take for what takes milliseconds; every ttl that must not matter is far longer."""

HOLD = """
import sys, time, lockkit
client = lockkit.connect({url!r}{connect})
lease = client.lock("job"{terms}).acquire(timeout=10)
print(lease.fence, flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""
"""A program that holds `job`, and answers expressions about its lease."""


def ask(process: subprocess.Popen[str], expression: str) -> str:
    """What such a program says of an expression."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(expression + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def runs(pid: int) -> bool:
    """Whether a process can still do something: it is there, and not on its way out (PF_EXITING) or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return fields[0] not in ("Z", "X") and not int(fields[6]) & 0x4
