"""The modules that a program imports, after the first one of lockkit, while a fork may come in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["unprotected_imports"]

USING = """
import sys, threading
import lockkit
from lockkit.lib.forks import IMPORTS

unprotected = []

def hook(event, args):
    if event == "import" and not IMPORTS._is_owned():
        unprotected.append(args[0])

sys.addaudithook(hook)
Chooser = type(
    "Chooser", (), {"choose": lambda *_: lockkit.Choice(["1"]), "judge": lambda *_: None, "every": 1.0})
with lockkit.connect(sys.argv[1]) as client:
    lease = client.lock("a").acquire(timeout=30)
    waiter = threading.Thread(target=lambda: client.lock("a").acquire(timeout=30).release())
    waiter.start()
    while len(client.inspect("a").claims) < 2:
        pass
    lease.confirm()
    client.annotate("a", lease.claim_id, {"x": 1})
    lease.release()
    waiter.join()
    for lock in (client.semaphore("s", 2), client.rwlock("r").read(),
                 client.all_of([client.lock("b"), client.lock("c")])):
        with lock:
            pass
    client.pool("p", ["1", "2"]).acquire(chooser=Chooser()).release()
    client.locked("d")(lambda: None)()
    client.check()
print(*unprotected)
"""


def unprotected_imports(url: str, folder: Path) -> list[str]:
    """The modules that a program with a configuration file imports unprotected from a fork, on a store."""
    (folder / "pyproject.toml").write_text('[tool.lockkit]\nmetrics.names = ["a"]\n')
    run = [sys.executable, "-W", "ignore", "-c", USING, url]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
