"""Processes that hold a lock, for the tests of what happens to them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from lockkit import Client

__all__ = ["AT_ONCE", "HOLD", "STAY", "ask", "runs", "seconds_to_acquire", "stop_between_statements"]

AT_ONCE = 15
"""Seconds that a slow machine may take for milliseconds of work; irrelevant ttls are longer."""

HOLD = """
import select, sys, time, lockkit
client = lockkit.connect({url!r}{connect})
lease = client.lock("job"{terms}).acquire(timeout=40)
print(lease.fence, flush=True)
while True:
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass
    line = sys.stdin.readline()
    if not line:
        break
    print(eval(line), flush=True)
"""
"""A program that holds `job`, and answers expressions about its lease.

Never blocks for long: a signal between Python's last look for signals and a system call does not interrupt
the call, so its handler would run only when the call returns.
"""

STAY = """while True:
        time.sleep(0.05)"""
"""Statements, four spaces deep, for a program that waits for a signal; for the reason see :data:`HOLD`."""


def ask(process: subprocess.Popen[str], expression: str) -> str:
    """The program's answer to an expression."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(expression + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def seconds_to_acquire(client: Client) -> float:
    """How long it takes to get `job`; it is released again."""
    began = time.monotonic()
    client.lock("job").acquire(timeout=40).release()
    return time.monotonic() - began


def runs(pid: int) -> bool:
    """Whether a process can still do something: it is there, not exiting (PF_EXITING), and no zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # the second one where it goes while we look
        return False
    return fields[0] not in ("Z", "X") and not int(fields[6]) & 0x4


def stop_between_statements(process: subprocess.Popen[str], url: str) -> None:
    """Stop a process that uses an embedded store, but not in a write, which would lock the file for all.

    A slow write is often struck on a busy machine. docs/backends/sqlite.md says what happens then.
    """
    while True:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with closing(
            sqlite3.connect(url.removeprefix("sqlite:"), timeout=0.5, isolation_level=None)
        ) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                continue
            other.execute("ROLLBACK")
            return
