"""Imports after the first one of lockkit: a fork in the middle of one would leave the child a module that it can never import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.harnesses.etcd import EtcdHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

USING = """
import sys, threading
import lockkit
from lockkit.forks import IMPORTS

unprotected = []

def hook(event, args):
    if event == "import" and not IMPORTS._is_owned():
        unprotected.append(args[0])

sys.addaudithook(hook)
Chooser = type("Chooser", (), {"choose": lambda *_: lockkit.Choice(["1"]), "judge": lambda *_: None, "every": 1.0})
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
    for lock in (client.semaphore("s", 2), client.rwlock("r").read(), client.all_of([client.lock("b"), client.lock("c")])):
        with lock:
            pass
    client.pool("p", ["1", "2"]).acquire(chooser=Chooser()).release()
    client.locked("d")(lambda: None)()
    client.check()
print(*unprotected)
"""


@pytest.mark.parametrize(
    "kind", [SqliteHarness, RedisHarness, EtcdHarness, ZooKeeperHarness], ids=lambda kind: kind.name
)
def test_a_store_imports_nothing_while_a_fork_may_come_in_between(kind, tmp_path):
    harness = kind(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.lockkit]\nmetrics.names = ["a"]\n')
    try:
        run = [sys.executable, "-W", "ignore", "-c", USING, harness.url]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    finally:
        harness.close()

    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
