"""The rows of docs/what-happens.md on Redis, etcd and ZooKeeper, with real processes and servers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

import lockkit
from lockkit.testing.processes import ServerMissing, until
from support.holders import AT_ONCE, STAY, ask, runs, seconds_to_acquire
from support.servers.etcd import EtcdServer
from support.servers.redis import RedisServer
from support.servers.zookeeper import ZooKeeperServer

LONG = 20
"""Seconds of a ttl whose end does not come in a test."""
TICK = 0.15
"""Seconds. ZooKeeper's shortest ttl is some ticks."""


class Kind(NamedTuple):
    """A kind of server.

    Attributes:
        start: Starts one.
        query: What the URL needs beside the address.
        ttl: A short ttl that the store allows.
        late: Seconds that the store may take to notice that a ttl is over.
        waiter: Seconds for which a waiter that is dead or stopped is waited for.
    """

    start: type
    options: dict
    query: str
    ttl: float
    late: float
    waiter: float


pytestmark = pytest.mark.full  # the rows of the page on SQLite are in test_what_happens.py
KINDS = {
    "redis": Kind(RedisServer, {}, "?", 1.5, 0.5, 6.0),
    "etcd": Kind(EtcdServer, {}, "?", 2.0, 1.5, 6.0),
    "zookeeper": Kind(ZooKeeperServer, {"tick": TICK}, f"?tick={TICK}&max_ttl=20&", 2.4, 1.0, 2.4),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    for library in {"redis": ["redis"], "zookeeper": ["kazoo"]}.get(request.param, []):
        pytest.importorskip(library)
    return KINDS[request.param]


@pytest.fixture(scope="module")
def server(kind):
    try:
        server = kind.start(**kind.options)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def url(server, kind, request):
    """A URL of a namespace that no other test uses, with a ttl that a busy machine does not miss."""
    return f"{server.url()}{kind.query}ttl={LONG}&namespace={abs(hash(request.node.name))}"


@pytest.fixture
def brief(url, kind):
    """The same with a short ttl, for what comes at its end."""
    return url.replace(f"ttl={LONG}", f"ttl={kind.ttl}")


@pytest.fixture
def brief_holder(holder, kind):
    """A holder with a short ttl."""
    return lambda terms="": holder(f", ttl={kind.ttl}{terms}")


# -- to the holder


def test_kill_9_of_a_program_frees_its_lock_when_its_ttl_is_over(client, brief_holder, kind):
    process = brief_holder()

    process.kill()

    assert kind.ttl / 4 < seconds_to_acquire(client) < kind.ttl + kind.late + AT_ONCE


def test_a_lock_delay_follows_kill_9(client, brief_holder, kind):
    if not client.capabilities.lock_delay:
        pytest.skip("ZooKeeper has no lock_delay")
    process = brief_holder(", lock_delay=2")

    process.kill()

    assert kind.ttl / 4 + 2 < seconds_to_acquire(client) < kind.ttl + 2 + kind.late + AT_ONCE


def test_kill_9_of_run_kills_its_command_and_frees_the_lock_when_its_ttl_is_over(client, wrapper, kind):
    process = wrapper("sh", "-c", "echo $$; exec sleep 60", options=("--ttl", f"{kind.ttl}s"))

    process.kill()

    assert kind.ttl / 4 < seconds_to_acquire(client) < kind.ttl + kind.late + AT_ONCE
    assert not runs(int(process.first))


def test_kill_9_of_run_kills_the_programs_of_a_script_too(wrapper):
    process = wrapper("sh", "-c", "sh -c 'echo $$; sleep 60; true'; true", options=("--ttl", f"{LONG}s"))

    process.kill()

    until(lambda: not runs(int(process.first)), "the program has ended", 30.0)


def test_sigterm_with_on_sigterm_releases(client, holder):
    process = holder(connect=', on_sigterm="release"')

    process.terminate()

    assert process.wait(40) == -signal.SIGTERM
    assert client.inspect("job").claims == ()


def test_sigterm_to_run_is_passed_on_and_the_lock_released(client, wrapper):
    process = wrapper(
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo; while :; do sleep 0.05; done",
        options=("--ttl", f"{LONG}s"),
    )

    process.terminate()

    assert process.wait(40) == 7
    assert client.inspect("job").claims == ()


def test_a_stopped_program_is_told_of_its_loss_when_it_goes_on(client, brief_holder):
    process = brief_holder()

    process.send_signal(signal.SIGSTOP)
    with client.lock("job").acquire(timeout=40) as lease:
        process.send_signal(signal.SIGCONT)

        assert lease.fence > process.fence
        assert ask(process, "lease.valid(), lease.lost.wait(40)") == "(False, True)"
        assert ask(process, "lease.release().outcome") == "LOST"
        assert lease.valid()


def test_the_command_of_a_stopped_run_is_dead_before_the_next_is_let_in(client, wrapper, kind):
    process = wrapper(
        "sh", "-c", "echo $$; exec sleep 60", options=("--ttl", f"{kind.ttl}s", "--kill-after", "0.3s")
    )

    process.send_signal(signal.SIGSTOP)
    with client.lock("job").acquire(timeout=40):
        assert not runs(int(process.first))
        process.send_signal(signal.SIGCONT)

        assert process.wait(40) == 76
    told = process.stderr.read()
    assert re.search(
        r"the watchdog (ended|killed) the command at .*, because this lockkit run was stopped", told
    )
    assert "about to go" not in told


def test_the_command_of_a_stopped_run_that_is_evicted_is_dead_before_the_next_is_let_in(
    client, wrapper, kind
):
    process = wrapper(
        "sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done", options=("--ttl", f"{kind.ttl}s")
    )

    process.send_signal(signal.SIGSTOP)
    (claim,) = client.inspect("job").claims
    assert client.evict("job", claim.claim_id, reason="test").outcome == "MARKED"
    with client.lock("job").acquire(timeout=40):
        assert not runs(int(process.first))


def test_the_end_of_a_program_releases_what_it_holds(client, started, url):
    text = f'import lockkit; lease = lockkit.connect({url!r}).lock("job").acquire()'

    assert started(sys.executable, "-W", "ignore", "-c", text).wait(40) == 0
    assert client.inspect("job").claims == ()


def test_ctrl_c_in_a_with_block_releases_the_lock(client, started, url):
    text = f"""
import time, lockkit
with lockkit.connect({url!r}).lock("job").acquire():
    print(flush=True)
    {STAY}
"""
    process = started(sys.executable, "-c", text)
    process.stdout.readline()

    process.send_signal(signal.SIGINT)

    assert process.wait(40) == -signal.SIGINT
    assert client.inspect("job").claims == ()


def test_ctrl_c_while_waiting_leaves_no_claim(client, url, started):
    with client.lock("job").acquire():
        process = started(
            sys.executable,
            "-m",
            "lockkit",
            "run",
            "--url",
            url,
            "--ttl",
            f"{LONG}s",
            "job",
            "--",
            "true",
        )
        while not client.inspect("job").waiters:
            time.sleep(0.02)

        process.send_signal(signal.SIGINT)

        assert process.wait(40) == 130
        assert client.inspect("job").waiters == ()


def test_in_a_forked_child_the_lease_is_inert_and_the_client_works(url):
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
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == ["False KEPT None", "True RELEASED"]


def test_max_hold_ends_a_forgotten_hold(client):
    lease = client.lock("job", max_hold=0.5).acquire()

    assert lease.lost.wait(40)
    assert lease.lost_because == "max_hold"
    assert lease.release().outcome in ("LOST", "RELEASED"), "by whoever removes the claim first"
    assert seconds_to_acquire(client) < AT_ONCE


def test_max_hold_ends_the_command_of_run(client, wrapper, kind):
    process = wrapper(
        "sh",
        "-c",
        "echo $$; exec sleep 60",
        options=("--ttl", f"{kind.ttl}s", "--max-hold", "1s", "--kill-after", "0.3s"),
    )

    with client.lock("job").acquire(timeout=40):
        assert not runs(int(process.first))

    assert process.wait(40) == 76


def test_an_evicted_holder_is_told_and_nobody_let_in_before_it_can_know(client, brief_holder):
    process = brief_holder()
    claim = client.inspect("job").holders[0].claim_id

    assert client.evict("job", claim, reason="a test").outcome == "MARKED"
    with client.lock("job").acquire(timeout=40):
        told = ask(process, "lease.lost.is_set(), lease.lost_because, lease.valid()")
    assert told == "(True, 'evicted', False)"


def test_evict_now_lets_the_next_in_at_once(client, brief_holder):
    process = brief_holder()
    claim = client.inspect("job").holders[0].claim_id

    assert client.evict("job", claim, reason="a test", now=True).outcome == "REMOVED"
    with client.lock("job").acquire(timeout=40) as lease:
        assert lease.fence > process.fence
        assert ask(process, "lease.lost.wait(40), lease.valid()") == "(True, False)"


def test_an_evicted_run_ends_its_command_before_the_next_is_let_in(client, wrapper, kind):
    process = wrapper(
        "sh", "-c", "echo $$; exec sleep 60", options=("--ttl", f"{kind.ttl}s", "--kill-after", "0.5s")
    )
    claim = client.inspect("job").holders[0].claim_id

    client.evict("job", claim, reason="a test")
    with client.lock("job").acquire(timeout=40):
        ended = not runs(int(process.first))

    assert ended
    assert process.wait(40) == 76


def test_a_client_that_is_closed_releases_what_it_holds(url, client):
    other = lockkit.connect(url)
    lease = other.lock("job").acquire()

    other.close()

    assert not lease.valid()
    assert client.inspect("job").claims == ()


# -- to a waiter


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_waiter_that_is_killed_or_stopped_is_passed_over(client, started, brief, kind, number):
    lease = client.lock("job").acquire()
    text = f'import lockkit; print(lockkit.connect({brief!r}).lock("job").acquire(timeout=60).fence)'
    waiter = started(sys.executable, "-W", "ignore", "-c", text)
    while not client.inspect("job").waiters:
        time.sleep(0.02)

    waiter.send_signal(number)
    lease.release()
    with client.lock("job").acquire(timeout=40) as second:
        if number == signal.SIGKILL:
            return
        waiter.send_signal(signal.SIGCONT)
        while not client.inspect("job").waiters:
            time.sleep(0.02)

    assert int(waiter.stdout.readline()) > second.fence


def test_a_timeout_leaves_nothing_behind(client, holder):
    holder()

    with pytest.raises(lockkit.AcquireTimeout):
        client.lock("job").acquire(timeout=0.3)

    assert client.inspect("job").waiters == ()


# -- to the server


def test_a_short_silence_of_the_server_costs_no_lock(server, url):
    with lockkit.connect(url) as client, client.lock("job", ttl=9).acquire() as lease:
        server.pause()
        time.sleep(3.5)  # in which it would have been renewed
        left = lease.remaining()
        server.resume()
        until(lambda: lease.remaining() > left, "it is renewed", 40)

        assert lease.valid()
        lease.confirm()


def test_a_silence_longer_than_the_ttl_is_a_loss_that_is_told_in_time(server, brief):
    with lockkit.connect(brief) as client:
        lease = client.lock("job").acquire()
        server.pause()
        try:
            assert lease.lost.wait(40)
            assert not lease.valid()
        finally:
            server.resume()
        lease.release()


def test_a_server_that_restarts_with_its_data_costs_no_lock(server, url):
    with lockkit.connect(url) as client:
        lease = client.lock("job").acquire()
        server.restart(lose_data=False)

        assert lease.valid()
        until_confirmed(lease)
        assert client.lock("job").try_acquire() is None
        assert lease.release().outcome == "RELEASED"


def until_confirmed(lease):
    """Confirm the lease once the server answers again; LeaseLost fails the test."""
    end = time.monotonic() + 18
    while True:
        try:
            lease.confirm()
        except lockkit.BackendError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def test_keys_that_somebody_deletes_free_the_lock_and_are_a_loss_for_its_holder(server, url, kind):
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        old = client.lock("job", ttl=kind.ttl).acquire()
        delete_everything(server)
        new = other.lock("job").acquire(timeout=40)

        assert new.fence > old.fence
        if kind.start is EtcdServer:
            with pytest.raises(lockkit.LeaseLost):
                old.confirm()
        assert old.lost.wait(40)
        assert new.release().outcome == "RELEASED"


def delete_everything(server):
    """As somebody would by hand, in the whole store."""
    if isinstance(server, RedisServer):
        server.cli("FLUSHALL")
    elif isinstance(server, EtcdServer):
        server.ctl("del", "--prefix", "lockkit/")
    else:
        with server.connect() as hand:
            hand.delete("/lockkit", recursive=True)


def test_a_server_that_lost_its_data_lets_the_next_in(server, url, kind):
    if kind.start is not RedisServer:
        pytest.skip("etcd and ZooKeeper keep their data")
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        old = client.lock("job").acquire()
        server.restart(lose_data=True)
        new = other.lock("job").acquire(timeout=40)

        assert new.fence > old.fence
        assert old.lost.wait(40)
        assert new.release().outcome == "RELEASED"
        old.release()
