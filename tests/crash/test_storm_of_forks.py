"""A storm of forks on the embedded store: processes that fork, open and close at random moments, and a witness outside of lockkit.

The witness is a POSIX lock on a file of its own: the kernel refuses it to the second of two holders, and frees it with its process.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest

from lockkit.testing.processes import until

PROCESSES = 4
GRANTS = int(os.environ.get("LOCKKIT_STORM_GRANTS", "1200"))
"""Ten thousand take some minutes."""

STORM = """
import fcntl, logging, os, random, sys, threading, time
import lockkit

logging.disable(logging.CRITICAL)
url, witness, log, seed = *sys.argv[1:4], int(sys.argv[4])
rng = random.Random(seed)
client = lockkit.connect(url)
over = threading.Event()


def hold(client, name):
    "Take the lock, and have the kernel confirm that nobody else has it."
    with client.lock(name, ttl=60).acquire(timeout=120) as lease:
        file = os.open(witness, os.O_RDWR)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.write(notes, f"overlap {os.getpid()} {lease.fence}\\n".encode())
        else:
            os.write(notes, f"grant {os.getpid()} {lease.fence}\\n".encode())
        finally:
            time.sleep(rng.choice((0.0, 0.0, 0.001)))
            os.close(file)


def forks():
    while not over.is_set():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if rng.random() < 0.3:
                    hold(client, "x")
                    if rng.random() < 0.5:
                        client.close()
                code = 0
            except lockkit.AcquireCancelled:  # the parent had closed the client
                code = 0
            except BaseException as error:
                os.write(notes, f"{error!r}\\n".encode())
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            os.write(notes, f"a child of {os.getpid()} failed\\n".encode())
        time.sleep(rng.uniform(0.0, 0.02))


notes = os.open(log, os.O_WRONLY | os.O_APPEND)
thread = threading.Thread(target=forks)
thread.start()
sys.stdin.close()
while os.stat(log).st_size < 1 << 30 and not os.path.exists(f"{log}.over"):
    if rng.random() < 0.02:
        client.close()
        client = lockkit.connect(url)
    try:
        hold(client, "x")
    except lockkit.AcquireCancelled:
        pass
over.set()
thread.join()
client.close()
"""


@pytest.mark.timeout(900)
def test_s2_no_two_hold_in_a_storm_of_forks(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    witness, log = tmp_path / "witness", tmp_path / "log"
    witness.touch()
    log.touch()
    url = f"sqlite:{folder}/locks.db"
    line = [sys.executable, "-c", STORM, url, str(witness), str(log)]
    running = [
        subprocess.Popen([*line, str(seed)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(PROCESSES)
    ]
    try:
        until(
            lambda: (
                log.read_text().count("grant") >= GRANTS or any(one.poll() is not None for one in running)
            ),
            "they get the lock again and again",
            800,
        )
        log.with_name("log.over").touch()
        told = [one.communicate(timeout=90)[1] for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()

    assert [one.returncode for one in running] == [0] * PROCESSES, told
    lines = log.read_text().splitlines()
    assert {each.split()[0] for each in lines} == {"grant"}, [each for each in lines if "grant" not in each]
    fences = [int(each.split()[2]) for each in lines]
    assert fences == sorted(set(fences)), "fences rise"
    with sqlite3.connect(folder / "locks.db") as database:
        assert not database.execute("SELECT value FROM meta WHERE key = 'anew'").fetchall(), (
            "no file was touched"
        )
    database.close()
