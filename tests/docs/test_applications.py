"""The applications of docs/howto/web-servers.md and asyncio.md under real servers, and forks as described."""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

import lockkit
from lockkit.testing.processes import free_port
from support.holders import AT_ONCE

SERVERS = {
    "gunicorn": ("wsgi:application", "--preload", "--workers=2", "--threads=4", "--bind=127.0.0.1:{port}"),
    "uvicorn": ("asgi:application", "--workers=2", "--host=127.0.0.1", "--port={port}", "--lifespan=off"),
    "fastapi": ("api:app", "--workers=2", "--host=127.0.0.1", "--port={port}"),
}

RUNS = {"fastapi": "uvicorn"}
"""The server of what is no server itself."""


@pytest.fixture
def environ(tmp_path, root):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    path = os.pathsep.join(filter(None, [str(root / "docs/examples/applications"), clean.get("PYTHONPATH")]))
    return clean | {
        "HOME": str(tmp_path),
        "LOCKKIT_STATE_DIR": str(state),
        "LOCKKIT_CONFIG": "/dev/null",
        "PYTHONPATH": path,
    }


@pytest.fixture
def client(environ):
    with lockkit.connect("sqlite:", state_dir=environ["LOCKKIT_STATE_DIR"]) as client:
        yield client


@pytest.fixture(params=SERVERS)
def ask(request, environ, tmp_path):
    """A request to a real server with two workers."""
    with serving(request.param, SERVERS[request.param], environ, tmp_path) as ask:
        yield ask


@contextmanager
def serving(name, words, environ, tmp_path):
    pytest.importorskip(name)
    port = free_port()
    command = [sys.executable, "-m", RUNS.get(name, name), *(word.format(port=port) for word in words)]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
    )

    def ask(account):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", f"/{account}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip('"').split()

    try:
        end = time.monotonic() + 60
        while True:
            try:
                ask("warm-up")
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
        yield ask
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def test_requests_for_one_account_are_served_one_at_a_time_over_all_workers(ask):
    with ThreadPoolExecutor(10) as pool:
        began = time.monotonic()
        answers = list(pool.map(ask, ["ann"] * 10))
        took = time.monotonic() - began

    assert {status for status, _ in answers} == {200}
    assert len({fence for _, (_, fence, _) in answers}) == 10
    assert took >= 10 * 0.2


def test_a_request_waits_for_any_other_process_of_the_host(ask, client):
    with ThreadPoolExecutor(1) as pool:
        with client.lock("account:ann").acquire():
            waiting = pool.submit(ask, "ann")
            while not client.inspect("account:ann").waiters:
                time.sleep(0.005)
            assert not waiting.done()
        assert waiting.result()[0] == 200


def test_a_worker_that_is_killed_blocks_nobody(ask, client):
    with ThreadPoolExecutor(2) as pool:
        _, (_, fence, pid) = ask("ann")
        busy = pool.submit(ask, "ann")
        # Not the hold of the first request: an application may release it after the response.
        while not (later := [one for one in client.inspect("account:ann").holders if one.fence > int(fence)]):
            time.sleep(0.005)
        os.kill(later[0].owner.pid, signal.SIGKILL)
        began = time.monotonic()
        client.lock("account:ann").acquire(timeout=40).release()

        assert time.monotonic() - began < AT_ONCE
        with pytest.raises((http.client.HTTPException, OSError)):
            busy.result()
    assert int(pid) > 0
    assert ask("ann")[0] == 200


def test_a_request_that_is_under_way_at_a_restart_keeps_its_lock_until_it_is_done(ask, client):
    """A graceful end: the server lets the worker finish, and the `with` releases."""
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(ask, "ann")
        while not client.inspect("account:ann").holders:
            time.sleep(0.005)
        os.kill(client.inspect("account:ann").holders[0].owner.pid, signal.SIGTERM)

        assert under_way.result()[0] == 200
    end = time.monotonic() + 40.0
    while client.inspect("account:ann").holders:  # FastAPI ends its dependencies when the answer is sent
        assert time.monotonic() < end
        time.sleep(0.005)


def test_gunicorn_ends_a_worker_without_threads_whose_request_waits_for_longer_than_its_timeout(
    environ, client, tmp_path
):
    words = ("wsgi:application", "--workers=1", "--timeout=2", "--bind=127.0.0.1:{port}")
    with serving("gunicorn", words, environ, tmp_path) as ask:
        with client.lock("account:ann").acquire():
            assert ask("ann")[0] == 500
            while client.inspect("account:ann").waiters:  # the interrupted wait ends in the background
                time.sleep(0.01)
        assert ask("ann")[0] == 200


# -- what plain prefork does, with which Celery starts its workers


FORKED = """
import os, signal, sys, time, lockkit

client = lockkit.connect()
client.lock("warm-up").acquire().release()  # the parent has used the store before it forks
pid = os.fork()
if pid == 0:
    {child}
    sys.stdout.flush()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)
"""


def forked(child, environ):
    text = FORKED.format(child="\n    ".join(child.strip().splitlines()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_child_of_a_client_that_was_used_before_the_fork_locks_and_is_kept_out(environ, client):
    with client.lock("job").acquire():
        assert forked('print(client.lock("job").try_acquire())', environ).stdout == "None\n"
    assert forked('print(client.lock("job").try_acquire() is None)', environ).stdout == "False\n"


def test_an_exception_of_a_signal_handler_ends_the_body_and_releases(environ, client):
    """A soft time limit."""
    child = """
class TimeLimit(Exception): pass
def raise_it(*_): raise TimeLimit
signal.signal(signal.SIGUSR1, raise_it)
try:
    with client.lock("job").acquire():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(30)
except TimeLimit:
    print("ended")
"""
    assert forked(child, environ).stdout == "ended\n"
    assert client.inspect("job").claims == ()


def test_a_child_that_is_killed_frees_its_lock_at_once(environ, client):
    """A hard time limit."""
    child = """
client.lock("job", ttl=60).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""
    forked(f"lease = {child.strip()}", environ)

    with client.lock("job").acquire(timeout=AT_ONCE):
        pass


# -- asyncio


@pytest.mark.parametrize(
    "named, ending", [(True, signal.SIGTERM), (False, signal.SIGINT)], ids=["term", "int"]
)
def test_the_worker_takes_turns_and_ends_on_a_signal(environ, tmp_path, root, named, ending):
    url = f"sqlite:{tmp_path}/worker/locks.db"
    (tmp_path / "worker").mkdir(mode=0o700)
    urls = [url] if named else []
    environ |= {} if named else {"LOCKKIT_URL": url}
    worker = subprocess.Popen(
        [sys.executable, str(root / "docs/examples/applications/worker.py"), *urls],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        turns = [worker.stdout.readline().split(" ")[0] for _ in range(6)]
        assert sorted(turns[:3]) == sorted(turns[3:]) == ["0", "1", "2"]
        worker.send_signal(ending)
        _, errors = worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 0
    assert errors == ""
    with lockkit.connect(url) as other:
        assert other.inspect("report").claims == ()


def test_gunicorn_and_uvicorn_are_what_the_tests_have():
    assert all(importlib.util.find_spec(name) for name in SERVERS)
