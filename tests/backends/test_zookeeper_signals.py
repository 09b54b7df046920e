"""Signal handlers that raise inside calls of the ZooKeeper store: nothing hides the exception or is torn."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("kazoo")

from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

TICK = 0.2
SIGNALS = 300

STORM = textwrap.dedent("""
    import logging, random, signal, sys, time, warnings
    import lockkit

    warnings.simplefilter("ignore", ResourceWarning)
    logging.disable()  # a log handler swallows what is raised in it
    url, seed, signals = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    client, observer = lockkit.connect(url), lockkit.connect(url)
    lock = client.lock("storm", ttl=4.0)
    kept = client.lock("kept", ttl=10.0).acquire(timeout=5.0)  # lost if a signal tears the session
    with lock.acquire(timeout=10.0):
        # Imports what it needs: the import system takes a TimeoutError of a handler for a missing module.
        client.inspect("storm")


    class TimeLimit(Exception):  # as Celery's is no BaseException
        pass


    KINDS = (KeyboardInterrupt, TimeLimit, TimeoutError)
    fired, caught, nowhere, expected = 0, 0, 0, None


    def handler(*_):
        global fired
        fired += 1
        raise expected


    def ignored(unraisable):  # in a finalizer, from where Python lets nothing come out
        global nowhere
        nowhere += unraisable.exc_value is expected


    CALLS = (
        lambda: lock.acquire(timeout=10.0).release(),
        lambda: (lease := lock.try_acquire()) and lease.release(),
        lambda: client.inspect("storm"),
        lambda: kept.confirm(),
    )
    sys.unraisablehook = ignored
    signal.signal(signal.SIGALRM, handler)
    for turn in range(signals):
        expected, call, before = KINDS[turn % 3]("storm"), CALLS[turn // 3 % 4], fired
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 4e-3))
            while fired == before:
                try:
                    call()
                except BaseException as error:
                    if fired == before:
                        raise
                    if error is not expected:
                        print(turn, "came out as", repr(error),
                            "from", repr(error.__cause__ or error.__context__))
                        continue
                    caught += 1
            continue
        except KINDS as error:  # between the calls
            assert error is expected, error
            caught += 1
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print("fired", fired, "caught", caught, "in finalizers", nowhere)
    assert fired == signals == caught + nowhere
    assert kept.valid(), kept.lost_because
    left, end = kept.remaining(), time.monotonic() + 30.0
    while kept.remaining() <= left and time.monotonic() < end:
        assert kept.valid(), kept.lost_because
        left = min(left, kept.remaining())
        time.sleep(0.02)
    assert kept.remaining() > left, "its session is confirmed no more"
    kept.confirm()
    lock.acquire(timeout=10.0).release()
    kept.release()
    end = time.monotonic() + 10.0
    while (
        left := [name for name in ("storm", "kept") if observer.inspect(name).claims]
    ) and time.monotonic() < end:
        time.sleep(0.02)
    assert not left, left
    client.close()
    print("survived")
""")


server = started(ZooKeeperServer, tick=TICK)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_signal_handler_raises_comes_out_and_leaves_nothing_behind(server, seed):
    url = f"{server.url(f'/storm-{seed}')}?tick={TICK}&max_ttl=12"
    told = subprocess.run(
        [sys.executable, "-c", STORM, url, str(seed), str(SIGNALS)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert told.returncode == 0, f"seed {seed}\n{told.stdout[-3000:]}{told.stderr[-5000:]}"
    assert "survived" in told.stdout, f"seed {seed}\n{told.stdout[-3000:]}{told.stderr[-5000:]}"
