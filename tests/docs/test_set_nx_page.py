"""docs/howto/from-set-nx.md: raw keys and lockkit do not exclude each other; its combined version does."""

from __future__ import annotations

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import lockkit
from support.pages import section

redis = pytest.importorskip("redis")

from support.servers.redis import RedisServer  # noqa: E402
from support.servers.started import started  # noqa: E402

PAGE = "docs/howto/from-set-nx.md"
ROUNDS, RUNS = 5, 3
COMPARE_AND_DELETE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)

server = started(RedisServer)


class Resource:
    """A resource for one process at a time, which counts how many use it at once."""

    def __init__(self):
        self._lock, self._inside = threading.Lock(), 0
        self.runs, self.together = 0, 0

    def use(self, *_):
        with self._lock:
            self._inside += 1
            self.runs += 1
            self.together = max(self.together, self._inside)
        time.sleep(0.005)  # the work
        with self._lock:
            self._inside -= 1


@pytest.fixture
def resource():
    return Resource()


@pytest.fixture
def version(pages, server, monkeypatch, tmp_path):
    """Run a program of the page, with the urls that it reads. Returns its names."""
    monkeypatch.setenv("LOCKKIT_URL", server.url(db=0))
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_GPU_SIMULATE", "1")
    monkeypatch.setenv("OLD_LOCK_URL", server.url(db=2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = []

    def run(title, **given):
        (code,) = re.findall(
            r"^```\{code-block\} python\n(.*?)^```", section(pages[PAGE], title), re.MULTILINE | re.DOTALL
        )
        names = dict(given)
        exec(code, names)
        made.append(names)
        return names

    yield run
    for names in made:
        names["raw"].close()
        if "locks" in names:
            names["locks"].close()


@pytest.fixture
def old(server, resource):
    """The old version: SET NX, work, and a release that compares."""
    raw = redis.Redis.from_url(server.url(db=2))

    def run(name):
        token = os.urandom(8).hex()
        while not raw.set(name, token, nx=True, ex=600):
            time.sleep(0.002)
        resource.use()
        raw.eval(COMPARE_AND_DELETE, 1, name, token)

    yield run
    raw.close()


def side_by_side(*versions):
    """Run versions of a program at the same time, each several times in several threads."""
    together = threading.Barrier(len(versions) * RUNS, timeout=30)

    def play(run):
        together.wait()
        for _ in range(ROUNDS):
            run()

    with ThreadPoolExecutor(len(versions) * RUNS) as pool:
        for one in [pool.submit(play, run) for run in versions for _ in range(RUNS)]:
            one.result(120)


def test_a_raw_key_does_not_keep_lockkit_out_and_lockkit_no_raw_key(server):
    with redis.Redis.from_url(server.url(db=0)) as raw, lockkit.connect(server.url(db=0)) as client:
        with raw.lock("report", timeout=60), client.lock("report").acquire(timeout=0) as lease:
            assert lease.valid()
        with client.lock("report").acquire(timeout=0), raw.lock("report", timeout=60, blocking=False) as key:
            assert key.owned()


def test_the_version_that_takes_both_excludes_the_old_one(version, old, resource):
    both = version("## Take both")["both"]

    def between():
        with both("report"):
            resource.use()

    side_by_side(between, lambda: old("report"))
    assert (resource.together, resource.runs) == (1, 2 * RUNS * ROUNDS)


def test_and_the_one_with_lockkit_alone(version, resource):
    names = version("## Take both")

    def between():
        with names["both"]("report"):
            resource.use()

    def new():
        with names["locks"].lock("report").acquire(timeout=60):
            resource.use()

    side_by_side(between, new)
    assert (resource.together, resource.runs) == (1, 2 * RUNS * ROUNDS)


def test_a_gpu_task_that_takes_both_excludes_the_old_gpu_lock(version, old, resource):
    task = version("## Tasks with `@gpu_lock`", compute=resource.use)["transcribe"]

    side_by_side(lambda: task("a.wav"), lambda: old("gpu_lock:0"))
    assert (resource.together, resource.runs) == (1, 2 * RUNS * ROUNDS)
    lockkit.gpu.default_client().close()


def test_the_order_of_a_deploy_is_on_the_pages_of_those_who_move(pages):
    for page in ("from-the-old-gpu-lock", "other-libraries", "task-queues"):
        assert "(from-set-nx.md" in pages[f"docs/howto/{page}.md"], page
