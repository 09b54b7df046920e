"""Each extra, alone and as pages combine them, from the wheel in an empty environment: its first example.

Nothing that the tests need is installed beside it, so only here a library that an extra omits is missed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from uv import find_uv_bin

from support.locked import FOLDER

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

LOCK = """
import lockkit, os
with lockkit.connect(os.environ["LOCKKIT_URL"]) as client, client.lock("nightly", ttl=20).acquire() as lease:
    print(lease.fence)
"""
ALERTS = """
import lockkit, lockkit.alerts.running, apprise
assert apprise.Apprise().add("mailto://user:secret@example.org")
"""
CELERY = """
import subprocess, sys
from celery import Celery
from lockkit.integrations.celery import LockedTask
app = Celery("tasks", broker=BROKER, backend=BROKER)
app.conf.lockkit_url = STORE
@app.task(bind=True, base=LockedTask, lock="invoice:{number}", name="bill")
def bill(self, number):
    return self.lease.fence
if __name__ == "__main__":
    sent = bill.delay(7)
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "1"])
    try:
        print(sent.get(timeout=60))
    finally:
        worker.terminate()
        worker.wait(60)
"""
DJANGO = """
import django, os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
from django.core.management import call_command
call_command("nightly")
"""
METRICS = """
import lockkit
from lockkit.observe.metrics import Metrics
from prometheus_client import generate_latest, REGISTRY
with lockkit.connect("memory:", plugins=[Metrics()]) as client, client.lock("a"):
    pass
assert b"lockkit" in generate_latest(REGISTRY)
"""
SERVER = """
import re, subprocess, sys, urllib.request
program = [sys.executable, "-u", "-m", "lockkit", "serve", "--bind", "127.0.0.1:0"]
with subprocess.Popen(program, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as server:
    try:
        address = next(filter(None, (re.search("http://[0-9.:]+", line) for line in server.stdout)))[0]
        assert urllib.request.urlopen(address + "/livez").status == 200
    finally:
        server.terminate()
"""
TOP = """
import subprocess, sys
import lockkit.cli.top.app
assert subprocess.run([sys.executable, "-m", "lockkit", "top", "--help"], capture_output=True).returncode == 0
"""
TESTING = """
import lockkit.testing.kit, pytest, hypothesis
"""
GPU = """
import subprocess, sys
import pynvml
run = [sys.executable, "-m", "lockkit", "run", "--gpu", "1", "--gpu-sim", "1", "--private"]
run += ["--", sys.executable, "-c", "print(7)"]
print(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
"""
ALL = f"{LOCK}\n{ALERTS}\n{METRICS}\n{TOP}\n{GPU}"

PROGRAMS = {
    "alerts": ALERTS,
    "all": ALL,
    "celery": CELERY,
    "celery,redis": CELERY,
    "django": DJANGO,
    "django,redis": DJANGO,
    "etcd": LOCK,
    "gpu": GPU,
    "metrics": METRICS,
    "python-etcd3": LOCK,
    "redis": LOCK,
    "server": SERVER,
    "server,alerts": SERVER,
    "testing": TESTING,
    "top": TOP,
    "zookeeper": LOCK,
}
"""The program for each extra, or extras that a page names together."""


def test_each_extra_and_each_set_of_them_in_a_page_has_a_program():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
    assert {*extras, *re.findall(r"lockkit\[([a-z0-9,-]+)\]", pages)} == {*PROGRAMS}


@pytest.fixture(scope="module")
def stores():
    """The URL of a server of each kind, started when it is first needed."""
    from support.servers.etcd import EtcdServer
    from support.servers.redis import RedisServer
    from support.servers.zookeeper import ZooKeeperServer

    kinds = {"redis": RedisServer, "etcd": EtcdServer, "zookeeper": ZooKeeperServer}
    with contextlib.ExitStack() as stack:
        made = {}

        def server(kind):
            if kind not in made:
                made[kind] = stack.enter_context(kinds[kind]())
            return made[kind]

        yield server


def url_of(extras, stores, folder):
    if extras in ("etcd", "python-etcd3"):
        url = stores("etcd").url()
        return url.replace("etcd:", "etcd+grpc:", 1) if extras == "python-etcd3" else url
    for kind in ("redis", "zookeeper"):
        if kind in extras:
            return stores(kind).url()
    return f"sqlite:{folder}/locks.db"


@pytest.mark.parametrize("extras", PROGRAMS)
def test_what_its_page_shows_first_works_in_an_empty_environment(extras, wheel, stores, tmp_path):
    if extras == "python-etcd3" and sys.version_info >= (3, 12):
        pytest.skip("its old protobuf has no wheels for this Python")
    lock = FOLDER / ("etcd3.txt" if extras == "python-etcd3" else "main.txt")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "PYTHON"))}
    environ |= {"UV_CONSTRAINT": str(lock), "LOCKKIT_STATE_DIR": str(tmp_path / "state")}

    def run(*command):
        done = subprocess.run(
            [str(one) for one in command],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"

    uv, python = (find_uv_bin(), "--no-config"), tmp_path / "venv" / "bin" / "python"
    run(*uv, "venv", "--python", sys.executable, tmp_path / "venv")
    run(*uv, "pip", "install", "--python", python, f"{wheel}[{extras}]")
    environ["LOCKKIT_URL"] = url_of(extras, stores, tmp_path)
    program = PROGRAMS[extras]
    if program is CELERY:
        # Also without the extra redis: Celery's client of its broker is the user's, so it comes by itself.
        if extras == "celery":
            run(*uv, "pip", "install", "--python", python, "redis")
        broker = stores("redis").url(db=1)
        program = f"BROKER = {json.dumps(broker)}\nSTORE = {json.dumps(environ['LOCKKIT_URL'])}\n{program}"
    if program is DJANGO:
        shutil.copytree(EXAMPLES / "django-shop" / "shop", tmp_path / "shop")
    (tmp_path / "tasks.py").write_text(program)
    run(python, "tasks.py")
