"""docs/examples/fleet: a deploy, a process without memory, a lost node; real Celery workers and servers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FLEET = Path(__file__).parents[2] / "docs/examples/fleet"
# Not find_spec("celery"): without Celery, that finds a folder of tests.
CELERY = any(Path(path, "celery", "app").is_dir() for path in sys.path)
needed = pytest.mark.skipif(
    not CELERY or importlib.util.find_spec("redis") is None or not shutil.which("redis-server"),
    reason="needs Celery, redis-py and redis-server",
)


@needed
@pytest.mark.timeout(300)
def test_a_deploy_a_killed_process_and_a_lost_node_cost_no_order_and_charge_none_twice(tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    run = subprocess.run(
        [sys.executable, "-W", "error", str(FLEET / "play.py")],
        env=clean | {"HOME": str(tmp_path), "LOCKKIT_CONFIG": "/dev/null", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    deploy, memory, node, held = run.stdout.splitlines()
    assert deploy.startswith("deploy: both nodes were replaced")
    assert re.search(r"in pod shop/worker-[ab] on node-[ab] for task shop\.charge\[.*\] was killed", memory)
    before, after = re.search(
        r"with fence (\d+); node-[ab] charged the order with fence (\d+)", node
    ).groups()
    assert int(after) > int(before)
    assert held == "held: 10 orders, each charged once, never two at work on one account, and fences rose"
    assert list(tmp_path.glob("lockkit-fleet-*")) == []


def test_the_page_shows_what_the_play_prints():
    page = (FLEET.parents[1] / "howto/kubernetes.md").read_text()

    for line in ("deploy: both nodes were replaced", "out of memory: ", "node lost: ", "held: 10 orders"):
        assert f"\n{line}" in page
