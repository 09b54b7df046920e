"""The runbook and upgrade pages, done for real: a restored Redis, a move to another store, two versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lockkit
from lockkit.testing.processes import ServerMissing, until
from support.forked import completed
from support.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0


@pytest.fixture
def server():
    pytest.importorskip("redis")
    try:
        server = RedisServer()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def environ(tmp_path):
    """The environment of a command, which reads its configuration from a file of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "XDG_"))}
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "config.toml").touch()
    return clean | {
        "HOME": str(tmp_path),
        "LOCKKIT_STATE_DIR": str(tmp_path / "state"),
        "LOCKKIT_CONFIG": str(tmp_path / "config.toml"),
    }


def command(environ, *words):
    line = [sys.executable, "-m", "lockkit", *words]
    return completed(
        line, env=environ, cwd=environ["HOME"]
    )  # or Python would find the sources where the tests run


# -- Redis was restored from a backup


def backed_up(server):
    """Take a backup, as an administrator does."""
    server.cli("SAVE")
    return shutil.copy(server.folder / "dump.rdb", server.folder / "backup.rdb")


def restored(server, backup):
    """Put a backup in the place of the data, and start."""
    shutil.copy(backup, server.folder / "dump.rdb")
    server.start()


def test_after_a_restore_as_the_page_says_nobody_holds_twice_and_fences_rise(server):
    with lockkit.connect(server.url()) as old, lockkit.connect(server.url()) as new:
        before = old.lock("backup", ttl=1.5).acquire(timeout=40)
        backup = backed_up(server)
        before.release()
        holder = old.lock("backup", ttl=1.5).acquire(timeout=40)
        server.stop()

        assert holder.lost.wait(PATIENCE)  # the longest ttl is over: nobody believes in a hold any more
        restored(server, backup)

        after = new.lock("backup", ttl=60).acquire(timeout=40)
        assert not holder.valid()
        assert before.fence < holder.fence < after.fence
        assert holder.release().outcome == "LOST"
        after.confirm()


def test_without_the_wait_two_hold_which_is_why_the_page_asks_for_it(server):
    with lockkit.connect(server.url()) as old, lockkit.connect(server.url()) as new:
        backup = backed_up(server)
        holder = old.lock("backup", ttl=60).acquire(timeout=40)
        server.stop()
        restored(server, backup)

        with new.lock("backup", ttl=60).acquire(timeout=40) as after:
            assert holder.valid()  # until its next renewal, in a third of its ttl
            assert after.fence > holder.fence  # so a guard refuses the late writer all the same


def test_a_drain_comes_back_with_the_backup(server):
    with lockkit.connect(server.url()) as client:
        client.drain("maintenance")
        backup = backed_up(server)
        client.undrain()
        server.stop()
        restored(server, backup)

        assert client.drained().reason == "maintenance"


# -- move to another store without a double hold


WORKER = """
import os, sys, time
import lockkit
from lockkit.errors import AcquireTimeout, Drained

inside, log, stop = sys.argv[1:]
while not os.path.exists(stop):
    with lockkit.connect() as client:
        try:
            lease = client.lock("job", ttl=30).acquire(timeout=1)
        except (AcquireTimeout, Drained):
            continue
        with lease:
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another one is inside
                told = "alone"
            except FileExistsError:
                told = "overlap"
            with open(log, "a") as file:
                file.write(f"{told} {client.url}\\n")
            time.sleep(0.01)
            if told == "alone":
                os.unlink(inside)
"""


@pytest.fixture
def workers(environ, tmp_path):
    """Three programs that take turns under one lock, in the store that the configuration currently names."""
    log, stop = tmp_path / "log", tmp_path / "stop"
    log.touch()
    words = [sys.executable, "-c", WORKER, str(tmp_path / "inside"), str(log), str(stop)]
    running = [subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    yield log
    stop.touch()
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def turns(log, url):
    return sum(url in line for line in log.read_text().splitlines())


def configure(environ, url):
    path = Path(environ["LOCKKIT_CONFIG"])
    path.with_suffix(".new").write_text(f'url = "{url}"\n')
    path.with_suffix(".new").replace(path)


@pytest.fixture
def first(environ, server):
    """The store that the programs use before the move."""
    configure(environ, server.url())
    return server.url()


def test_a_move_as_the_page_says_lets_nobody_in_twice(environ, first, workers, tmp_path):
    second = f"sqlite:{tmp_path}/state/new.db"
    until(lambda: turns(workers, first) >= 5, "the workers take turns in the old store", PATIENCE)
    with lockkit.connect(first) as slow, slow.lock("job", ttl=60).acquire(timeout=40) as lease:
        (tmp_path / "inside").touch()  # somebody is still at work in the old store
        drain = threading.Thread(target=lambda: drained.append(command(environ, *DRAIN)))
        drained = []
        drain.start()
        until(lambda: slow.drained() is not None, "the namespace is drained", PATIENCE)
        lease.confirm()
        assert drain.is_alive()
        (tmp_path / "inside").unlink()
    drain.join(PATIENCE)
    assert drained[0].returncode == 0, drained[0].stderr

    before = turns(workers, first)
    configure(environ, second)

    until(lambda: turns(workers, second) >= 5, "the workers take turns in the new store", PATIENCE)
    assert turns(workers, "overlap") == 0
    assert turns(workers, first) == before
    straggler = command(environ, "run", "--url", first, "job", "--no-wait", "--", "true")
    assert straggler.returncode == 75, straggler.stderr


DRAIN = ("drain", "--reason", "moving to redis://new", "--wait", "--timeout", "1m")


def test_the_drain_of_this_test_is_that_of_the_page():
    page = (ROOT / "docs/ops/runbook.md").read_text()

    assert f'lockkit drain --reason "{DRAIN[2]}" --wait' in page


def test_without_the_drain_two_stores_let_two_in(environ, first, workers, tmp_path):
    second = f"sqlite:{tmp_path}/state/new.db"
    until(lambda: turns(workers, first) >= 5, "the workers take turns in the old store", PATIENCE)

    with lockkit.connect(first) as slow, slow.lock("job", ttl=60).acquire(timeout=40):
        (tmp_path / "inside").touch()
        configure(environ, second)

        until(lambda: turns(workers, "overlap"), "somebody works in the new store beside the old", PATIENCE)
        (tmp_path / "inside").unlink()


# -- roll back the library


@pytest.fixture
def newer(tmp_path):
    """A lockkit 9.9.9 with a newer layout, readable by older versions or not; returns its folder."""

    def make(min_reader):
        site = tmp_path / f"newer-{min_reader}"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "lockkit", site / "lockkit", ignore=ignored)
        for backend in (ROOT / "backends").glob("lockkit_*"):
            shutil.copytree(backend, site / backend.name, ignore=ignored)
        replace(site / "lockkit/_version.py", r'__version__ = ".*"', '__version__ = "9.9.9"')
        layout = site / "lockkit_sqlite/layout.py"
        replace(layout, r"^VERSION = 2$", "VERSION = 3")
        replace(layout, r"^READER = 2$", f"READER = {min_reader}")
        return site

    return make


def replace(path, old, new):
    text, count = re.subn(old, new, path.read_text(), flags=re.MULTILINE)
    assert count == 1, path
    path.write_text(text)


def version(environ, site=None):
    """The environment of a program that uses this version of lockkit, or the newer one."""
    return environ if site is None else environ | {"PYTHONPATH": str(site)}


def test_two_versions_with_one_layout_share_a_queue_forward_and_back(environ, newer, tmp_path, started):
    site = newer(min_reader=2)
    order = tmp_path / "order"
    url = f"sqlite:{tmp_path}/state/lockkit.db"
    running = []

    def start(who, *words):
        line = [sys.executable, "-m", "lockkit", "run", "job", "--", "sh", "-c", *words]
        running.append(started(*line, env=version(environ, site if who == "new" else None), cwd=tmp_path))
        with lockkit.connect(url) as client:
            until(
                lambda: len([*client.inspect("job").holders, *client.inspect("job").waiters]) == len(running),
                f"{who} is in the queue",
                PATIENCE,
            )

    begin = tmp_path / "begin"
    start("old", f"echo old >> {order}; while [ ! -e {begin} ]; do sleep 0.05; done")
    for who in ("new", "old", "new", "old"):  # an upgrade, and the way back, while all of them wait
        start(who, f"echo {who} >> {order}; mkdir {order}.d && sleep 0.05 && rmdir {order}.d")
    with lockkit.connect(url) as client:
        versions = [claim.owner.version for claim in client.inspect("job").waiters]
    begin.touch()

    assert [process.wait(PATIENCE) for process in running] == [0] * 5
    assert order.read_text().split() == ["old", "new", "old", "new", "old"]
    assert versions == ["9.9.9", lockkit.__version__] * 2


def test_an_older_version_refuses_what_it_may_not_read_and_goes_on_in_another_store(environ, newer, tmp_path):
    site = newer(min_reader=3)
    assert command(version(environ, site), "run", "job", "--", "true").returncode == 0

    refused = command(environ, "run", "job", "--", "true")

    assert refused.returncode == 78
    assert "9.9.9" in refused.stderr
    drained = command(version(environ, site), "drain", "--wait", "--timeout", "1m")
    assert drained.returncode == 0, drained.stderr
    configure(environ, f"sqlite:{tmp_path}/state/back.db")
    assert command(environ, "run", "job", "--", "true").returncode == 0
