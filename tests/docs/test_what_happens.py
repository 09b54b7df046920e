"""Rows of docs/what-happens.md about the embedded store, tried with real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lockkit
from lockkit.testing.processes import until
from support.holders import AT_ONCE, STAY, ask, runs, seconds_to_acquire, stop_between_statements


@pytest.fixture
def url(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    return f"sqlite:{folder}/locks.db"


def test_kill_9_of_a_program_frees_its_lock_at_once(client, holder):
    process = holder(", ttl=60")

    process.kill()

    assert seconds_to_acquire(client) < AT_ONCE


def test_sigterm_without_a_handler_runs_no_cleanup_but_frees_the_lock(client, holder):
    process = holder(", ttl=60")

    process.terminate()

    assert seconds_to_acquire(client) < AT_ONCE
    assert process.wait() == -signal.SIGTERM


def test_sigterm_with_on_sigterm_releases_and_keeps_no_lock_delay(client, holder):
    process = holder(", ttl=60, lock_delay=30", ', on_sigterm="release"')

    process.terminate()

    assert seconds_to_acquire(client) < AT_ONCE
    assert process.wait() == -signal.SIGTERM


def test_a_lock_delay_follows_kill_9(client, holder):
    process = holder(", ttl=60, lock_delay=3")

    process.kill()

    assert 1 < seconds_to_acquire(client) < 3 + AT_ONCE


def test_a_stopped_program_is_told_of_its_loss_when_it_goes_on(client, holder, url):
    process = holder(", ttl=0.6")

    stop_between_statements(process, url)
    with client.lock("job").acquire(timeout=40) as lease:
        process.send_signal(signal.SIGCONT)

        assert lease.fence > process.fence
        assert ask(process, "lease.valid(), lease.lost.wait(40)") == "(False, True)"
        assert ask(process, "lease.release().outcome") == "LOST"
        assert lease.valid()


def test_kill_9_of_run_kills_its_command_and_frees_the_lock(client, wrapper):
    process = wrapper("sh", "-c", "echo $$; exec sleep 60")

    process.kill()

    assert seconds_to_acquire(client) < AT_ONCE
    assert not runs(int(process.first))


def test_kill_9_of_run_kills_what_its_command_has_started(client, wrapper):
    process = wrapper("sh", "-c", "sleep 60 >/dev/null & echo $!; wait")

    process.kill()

    assert seconds_to_acquire(client) < AT_ONCE
    assert not runs(int(process.first))


def test_kill_9_of_run_frees_nothing_under_a_daemon(client, wrapper):
    process = wrapper("sh", "-c", "setsid sh -c 'echo $$; exec sleep 60 >/dev/null' & wait")

    process.kill()

    with pytest.raises(lockkit.AcquireTimeout):
        client.lock("job").acquire(timeout=1)
    os.kill(int(process.first), signal.SIGKILL)
    assert seconds_to_acquire(client) < AT_ONCE


PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=True{options})
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def left_behind():
    """Ends the daemon that a killed run leaves behind."""
    pids = []
    yield lambda process: pids.append(int(process.first)) or pids[-1]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_that_closes_its_inherited_descriptors_outlives_kill_9_of_run_without_the_lock(
    client, wrapper, left_behind
):
    process = wrapper(sys.executable, "-c", PARENT.format(options=""))
    pid = left_behind(process)

    process.kill()

    assert seconds_to_acquire(client) < AT_ONCE
    assert runs(pid), "the limit that docs/what-happens.md tells of"


def test_with_close_fds_false_it_keeps_the_lock(client, wrapper, left_behind):
    process = wrapper(sys.executable, "-c", PARENT.format(options=", close_fds=False"))
    pid = left_behind(process)

    process.kill()

    with pytest.raises(lockkit.AcquireTimeout):
        client.lock("job").acquire(timeout=1)
    os.kill(pid, signal.SIGKILL)
    assert seconds_to_acquire(client) < AT_ONCE


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv to become another user",
)
def test_a_command_that_changes_its_user_ends_by_kill_9_of_a_run_of_root(client, wrapper):
    process = wrapper(
        "setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo $$; exec sleep 60 >/dev/null"
    )

    process.kill()

    assert seconds_to_acquire(client) < AT_ONCE
    assert not runs(int(process.first))


def test_sigterm_to_run_is_passed_on_and_the_lock_released(client, wrapper):
    process = wrapper("sh", "-c", "trap 'exit 7' TERM; echo; while :; do sleep 0.05; done")

    process.terminate()

    assert process.wait(40) == 7
    assert seconds_to_acquire(client) < AT_ONCE


def test_a_stopped_run_keeps_its_lock_past_its_ttl(client, wrapper, url):
    process = wrapper("sh", "-c", "echo; exec sleep 60", options=("--ttl", "1s"))

    stop_between_statements(process, url)

    with pytest.raises(lockkit.AcquireTimeout):
        client.lock("job").acquire(timeout=2.5)


def test_ctrl_c_while_waiting_leaves_no_claim(client, url, started):
    lease = client.lock("job").acquire()
    process = started(sys.executable, "-m", "lockkit", "run", "--url", url, "job", "--", "true")
    while not client.inspect("job").waiters:
        time.sleep(0.02)

    process.send_signal(signal.SIGINT)

    assert process.wait(40) == 130
    assert client.inspect("job").waiters == ()
    lease.release()


def test_ctrl_c_in_a_with_block_releases_the_lock(client, started, url):
    text = f"""
import time, lockkit
with lockkit.connect({url!r}).lock("job", ttl=60).acquire():
    print(flush=True)
    {STAY}
"""
    process = started(sys.executable, "-c", text)
    process.stdout.readline()

    process.send_signal(signal.SIGINT)

    assert process.wait(40) == -signal.SIGINT
    assert seconds_to_acquire(client) < AT_ONCE


def test_the_end_of_a_program_releases_what_it_holds(client, started, url):
    text = f'import lockkit; lease = lockkit.connect({url!r}).lock("job", ttl=60, lock_delay=30).acquire()'

    assert started(sys.executable, "-W", "ignore", "-c", text).wait(40) == 0
    assert seconds_to_acquire(client) < AT_ONCE


def test_in_a_forked_child_the_lease_is_inert_and_the_client_works(client, url):
    text = f"""
import os, lockkit
client = lockkit.connect({url!r})
lease = client.lock("job").acquire()
if os.fork() == 0:
    print(lease.valid(), lease.release().outcome, client.lock("job").try_acquire(), flush=True)
    os._exit(0)
os.wait()
print(lease.valid(), lease.release().outcome)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["False KEPT None", "True RELEASED"]


def test_evict_marks_a_holder_and_lets_nobody_in_before_it_can_know(client, holder):
    process = holder(", ttl=1.2")
    claim = client.inspect("job").holders[0].claim_id

    assert client.evict("job", claim, reason="a test").outcome == "MARKED"
    assert seconds_to_acquire(client) > 0.1
    assert (
        ask(process, "lease.lost.is_set(), lease.lost_because, lease.valid()") == "(True, 'evicted', False)"
    )


def test_an_evicted_run_ends_its_command_before_the_next_is_let_in(client, wrapper):
    process = wrapper("sh", "-c", "echo $$; exec sleep 60", options=("--ttl", "2s", "--kill-after", "0.5s"))
    claim = client.inspect("job").holders[0].claim_id

    client.evict("job", claim, reason="a test")
    with client.lock("job").acquire(timeout=40):
        ended = not runs(int(process.first))

    assert ended
    assert process.wait(40) == 76


def test_the_command_of_a_stopped_run_that_is_evicted_is_dead_before_the_next_is_let_in(client, wrapper, url):
    process = wrapper("sh", "-c", "echo $$; exec sleep 60", options=("--ttl", "2s", "--kill-after", "0.3s"))
    stop_between_statements(process, url)
    (claim,) = client.inspect("job").claims
    until(lambda: time.time() > claim.renewed + 2 * claim.ttl, "it is silent for longer than its ttl", 40)
    assert runs(int(process.first))

    assert client.evict("job", claim.claim_id, reason="a test").outcome == "MARKED"
    with client.lock("job").acquire(timeout=40):
        assert not runs(int(process.first))
        process.send_signal(signal.SIGCONT)

        assert process.wait(40) == 76
    assert "the lock is lost (it was evicted); the watchdog" in process.stderr.read()


def test_a_client_that_is_closed_releases_what_it_holds(url, client):
    other = lockkit.connect(url)
    lease = other.lock("job", ttl=60).acquire()

    other.close()

    assert not lease.valid()
    assert seconds_to_acquire(client) < AT_ONCE


def test_max_hold_ends_a_forgotten_hold(client):
    lease = client.lock("job", max_hold=0.5).acquire()

    assert lease.lost.wait(40)
    assert lease.lost_because == "max_hold"
    assert lease.release().outcome in ("LOST", "RELEASED"), "by whoever removes the claim first"
    assert seconds_to_acquire(client) < AT_ONCE


def test_min_hold_keeps_the_lock_after_its_release(client):
    began = time.monotonic()
    report = client.lock("job", min_hold=1).acquire().release()

    assert report.outcome == "RELEASED"
    assert seconds_to_acquire(client) < AT_ONCE
    assert time.monotonic() - began > 0.95


def test_max_hold_ends_the_command_of_run(client, wrapper):
    process = wrapper(
        "sh", "-c", "echo $$; exec sleep 60", options=("--max-hold", "1s", "--kill-after", "0.3s")
    )

    with client.lock("job").acquire(timeout=40):
        assert not runs(int(process.first))

    assert process.wait(40) == 76


def test_a_stopped_waiter_is_passed_over_and_queues_again(client, started, url):
    lease = client.lock("job").acquire()
    text = f'import lockkit; print(lockkit.connect({url!r}).lock("job").acquire(timeout=60).fence)'
    waiter = started(sys.executable, "-W", "ignore", "-c", text)
    while not client.inspect("job").waiters:
        time.sleep(0.02)

    waiter.send_signal(signal.SIGSTOP)
    lease.release()
    with client.lock("job").acquire(timeout=40) as second:
        waiter.send_signal(signal.SIGCONT)
        while not client.inspect("job").waiters:
            time.sleep(0.02)

    assert int(waiter.stdout.readline()) > second.fence


def test_a_deleted_file_is_a_loss_told_with_the_next_renewal(client, holder, url):
    process = holder(", ttl=1.5")

    for path in Path(url.partition(":")[2]).parent.glob("locks.db*"):
        if path.is_file():
            path.unlink()

    with client.lock("job").acquire(timeout=40) as lease:
        assert lease.fence > process.fence
        assert ask(process, "lease.lost.wait(40), lease.valid()") == "(True, False)"
        assert lease.valid()


def test_a_collected_lease_warns_and_frees_its_lock_when_its_validity_ends(client, started, url):
    text = f"""
import gc, sys, lockkit
client = lockkit.connect({url!r})
def forget():
    client.lock("job", ttl=1.2).acquire()
forget()
gc.collect()
print(flush=True)
sys.stdin.readline()
"""
    began = time.monotonic()
    process = started(sys.executable, "-W", "default", "-c", text)
    process.stdout.readline()

    assert seconds_to_acquire(client) < AT_ONCE
    assert time.monotonic() - began > 1.1
    assert (
        "<string>:5: ResourceWarning: the lease of 'job' was never released" in process.communicate("\n")[1]
    )
