"""Real processes on a real file."""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from lockkit.testing.processes import until
from lockkit.testing.shapes import SHAPES

ACTOR = Path(__file__).with_name("actor.py")
TESTS = str(Path(__file__).parent.parent)
NAME = "crash/lock"
PATIENCE = 40.0


def writing(path):
    """Whether a process is in the middle of a write."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as newcomer:
        try:
            newcomer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        newcomer.execute("ROLLBACK")
        return False


class Actor:
    """One process. ``run`` tells it to do something; ``start`` and ``result`` do so in two steps."""

    def __init__(self, path, shape):
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, str(ACTOR), f"sqlite:{path}", shape.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]),
            },
        )
        self._answers = queue.Queue()
        self._said = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._listen, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def _listen(self):
        self._said.extend(self.process.stderr)

    @property
    def pid(self):
        return self.process.pid

    @property
    def said(self):
        """The text that the process has written to stderr."""
        return "".join(self._said)

    def start(self, code):
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def result(self, timeout=PATIENCE):
        answer = self._answers.get(timeout=timeout)
        assert answer is not None, f"the process ended with {self.process.wait()}: {''.join(self._said)}"
        assert "error" not in answer, answer.get("traceback")
        return answer["result"]

    def busy(self):
        return self._answers.empty()

    def run(self, code, timeout=PATIENCE):
        self.start(code)
        return self.result(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Stop the process, but not in the middle of a write: then nobody else could write either."""
        stopped = False
        while not stopped:
            self.process.send_signal(signal.SIGSTOP)
            until(lambda: self._state() == "T", "the process is stopped", PATIENCE)
            stopped = not writing(self.path)
            if not stopped:
                self.resume()

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def _state(self):
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait(self, timeout=PATIENCE):
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        for reader in self._readers:
            reader.join(5.0)
        self.process.stdout.close()
        self.process.stderr.close()


class Cast:
    """All processes of one test, and the file that they share."""

    def __init__(self, folder, shape):
        self.path = folder / "store" / "crash.db"
        self.url = f"sqlite:{self.path}"
        self.shape = shape
        self.actors = []

    def actor(self):
        actor = Actor(self.path, self.shape)
        self.actors.append(actor)
        return actor

    def holders(self, **options):
        """As many processes as fit, each holding."""
        actors = [self.actor() for _ in self.shape.holders]
        for at, actor in enumerate(actors):
            actor.run(
                f"lease = shape.holders[{at}].lock(client, NAME, **{options!r}).acquire(40); "
                "result = lease.fence"
            )
        return actors

    def waiter(self, then="lease.fence", timeout=60):
        """A process that waits in the queue; its result comes once it holds."""
        actor = self.actor()
        before = len(self.rows())
        actor.start(f"lease = shape.newcomer.lock(client, NAME, ttl=60).acquire({timeout}); result = {then}")
        until(lambda: len(self.rows()) > before or not actor.busy(), "it waits", PATIENCE)
        assert actor.busy()
        return actor

    def rows(self):
        """The queue as the file has it: (state, fence), in order; 0 WAITING, 1 HELD, 2 LINGERING."""
        connection = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
        try:
            query = "SELECT state, fence FROM claims WHERE name = ? ORDER BY fence"
            return connection.execute(query, (NAME,)).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []  # somebody is about to create it
        finally:
            connection.close()

    def close(self):
        for actor in self.actors:
            actor.close()


# The store's queue decides between readers and a writer, whichever of them dies: `make full` plays these.
@pytest.fixture(
    params=[*SHAPES[:2], *(pytest.param(shape, marks=pytest.mark.full) for shape in SHAPES[2:])],
    ids=lambda shape: shape.name,
)
def cast(request, tmp_path):
    cast = Cast(tmp_path, request.param)
    yield cast
    cast.close()


@pytest.fixture
def mutex(tmp_path):
    cast = Cast(tmp_path, SHAPES[0])
    yield cast
    cast.close()
