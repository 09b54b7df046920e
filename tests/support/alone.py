"""Servers on the ports that documentation names, in their own network: others may use these ports here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["can_be_alone", "served"]

_DRIVER = """
import fcntl, json, signal, socket, struct, subprocess, sys, time

with socket.socket() as one:  # bring the loopback interface up
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", 1))
server, check = json.loads(sys.argv[1])
with subprocess.Popen(server, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    end = time.monotonic() + 60
    while True:
        checked = subprocess.run(check, capture_output=True, text=True)
        if checked.returncode == 0 or process.poll() is not None or time.monotonic() > end:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
print(json.dumps({
    "check": checked.returncode, "said": checked.stdout, "code": process.returncode, "out": out, "err": err}))
"""


def can_be_alone() -> bool:
    """Whether this machine lets us make a network."""
    try:
        return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def served(server: Sequence[str], check: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Start a server in its home folder, repeat a check until it succeeds, and end the server by SIGTERM.

    Returns:
        Exit code and output of the check (``check``, ``said``) and server (``code``, ``out``, ``err``).
    """
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _DRIVER, json.dumps([[*server], [*check]])],
        env=dict(environ),
        cwd=environ["HOME"],  # or Python would find the sources where the tests run
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
