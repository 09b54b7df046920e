"""A shell in which ``lockkit`` has a home, a store and a state folder of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lockkit import connect
from lockkit.config import config
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.lib.descent import children, descendants
from lockkit.notes.members import pool_name
from lockkit.views import making
from lockkit.views.documents import plain
from support.forked import completed
from support.servers.etcd import EtcdServer
from support.servers.redis import RedisServer
from support.servers.zookeeper import ZooKeeperServer

SECONDS = 40.0
"""Ends a wait in vain: longer than anything takes on a busy machine, shorter than the 60 s of commands."""
PATIENT = "from lockkit.cli import completing, script; completing._LONGEST = 15.0; script.main()"


class Job(NamedTuple):
    """The words after ``run`` that say what is held, and the name whose queue has the claim."""

    words: tuple[str, ...]
    queue: str


class Shell:
    """Runs ``lockkit`` as its users do: as a process. What it started is gone at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("LOCKKIT_", "XDG_")) and key != "PYTHONUNBUFFERED"
        }
        self.env |= {"HOME": str(folder), "LOCKKIT_STATE_DIR": str(folder / "state"), "COLUMNS": "100"}
        self.started: list[subprocess.Popen[str]] = []

    def line(self, *args: object) -> list[str]:
        return [sys.executable, "-m", "lockkit", *map(str, args)]

    def patient_line(self) -> list[str]:
        """The program, but a completion may take long: a busy machine needs a second for Python alone."""
        return [sys.executable, "-c", PATIENT]

    def __call__(
        self, *args: object, env: dict[str, str] | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.run(self.line(*args), env=self.env | (env or {}), **more)

    def run(self, line: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        """Any program, in this shell, to its end."""
        return completed(line, **{"env": self.env, "cwd": self.folder, "timeout": SECONDS} | more)

    def start(self, *args: object, **more: Any) -> subprocess.Popen[str]:
        """Start the command line in a new interpreter: tests signal its start, or find it by its words."""
        process = subprocess.Popen(
            self.line(*args),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        self.started.append(process)
        return process

    def json(self, *args: object) -> Any:
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def claims(self, name: str, **settings: Any) -> list[dict[str, Any]]:
        """Everybody in the queue of a name, as ``status --json`` shows them.

        This process looks, by a client with the shell's settings: tests look again and again, and a program
        for each look would keep a processor busy for a tenth of a second.
        """
        found = config.load(environ=self.env, cwd=self.folder, **settings)
        with connect(config=found) as client:
            lock = plain(making.lock(client.inspect(name)))
        return [*lock["holders"], *lock["waiters"]]

    def holder(self, name: str, program: str = "sleep", *options: object) -> subprocess.Popen[str]:
        """A ``run`` that holds a name until it is ended."""
        return self.holding(Job((name, *map(str, options)), name), program)

    def holding(self, job: Job, program: str = "sleep") -> subprocess.Popen[str]:
        """A ``run`` that holds what a job holds until it is ended."""
        process = self.start("run", *job.words, "--", program, "60")
        self.until(lambda: children(process.pid) or process.poll() is not None)
        self.until(lambda: any(claim["state"] == "HELD" for claim in self.claims(job.queue)))
        return process

    def install(self, name: str, text: str) -> None:
        """A plugin of one module."""
        site = self.folder / "site"
        about = site / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[lockkit]\n{name} = {name}\n")
        (site / f"{name}.py").write_text(text)
        self.env["PYTHONPATH"] = f"{site}:{self.env.get('PYTHONPATH', '')}"

    def until(self, true: Callable[[], object], seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.02)

    def file(self, name: str) -> str:
        """The text of a file that something is about to write a line to."""
        path = self.folder / name
        self.until(lambda: path.exists() and path.read_text().endswith("\n"))
        return path.read_text().strip()

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                # The command first: one that survives its wrapper would keep the pipes open.
                for pid in [*descendants(process.pid), process.pid]:
                    with suppress(ProcessLookupError):  # it has just ended by itself
                        os.kill(pid, signal.SIGKILL)
            process.communicate()


class Tty:
    """A program that leads a session on a pseudo-terminal of its own."""

    def __init__(self, args, env, folder) -> None:
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(folder)
                os.execvpe(args[0], args, env)
            finally:
                os._exit(127)

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def complete(self, typed: str, finished: str) -> None:
        """Type a line and TAB, and TAB again after an answer that took over a second, and so was empty."""
        self.type(typed)
        with_bells = "\x07*".join(map(re.escape, finished))
        for _ in range(8):
            self.type("\t")
            try:
                self.expect(with_bells, 5.0)
            except AssertionError:
                continue
            return
        raise AssertionError(f"{finished!r} never came; there is {self.text!r}")

    def expect(self, pattern: str, seconds: float = SECONDS) -> str:
        """Read until the pattern has come, and forget what was before."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < end, f"{pattern!r} never came; there is {self.text!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:
                    data = b""
                assert data, f"{pattern!r} never came before the end; there is {self.text!r}"
                self.text += data.decode(errors="replace")
        self.text = self.text[found.end() :]
        return found[0]

    def front(self) -> int:
        """The process group that has the terminal."""
        return os.tcgetpgrp(self.fd)

    def idle(self) -> bool:
        """Whether the process in front sleeps: if it has just prompted, it now waits for keys."""
        return Path(f"/proc/{self.front()}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def wait(self) -> int:
        """Read to the end; the exit code, negative for a signal."""
        end = time.monotonic() + SECONDS
        while True:
            assert time.monotonic() < end, f"it never ended; there is {self.text!r}"
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def hang_up(self) -> None:
        """Take the terminal away, as a broken connection does: leader and foreground group get SIGHUP."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.hang_up()
        try:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def lockkit(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.end()


@pytest.fixture
def tty(lockkit: Shell) -> Iterator[Callable[..., Tty]]:
    opened: list[Tty] = []

    def start(*args: object, **env: str) -> Tty:
        one = Tty(
            [str(arg) for arg in args],
            lockkit.env | {"TERM": "xterm", "PS1": "PROMPT> "} | env,
            lockkit.folder,
        )
        opened.append(one)
        return one

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def bash(tty):
    """An interactive shell with job control."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    shell = tty("bash", "--norc", "--noprofile", "-i")
    shell.expect("PROMPT> ")
    return shell


@pytest.fixture(params=["name", "card"])
def job(request: pytest.FixtureRequest, lockkit: Shell) -> Job:
    """A lock, and a simulated GPU."""
    if request.param == "name":
        return Job(("x",), "x")
    lockkit.env.pop("CUDA_VISIBLE_DEVICES", None)
    card = SimulatedProvider(1).snapshot().devices[0].uuid
    words = ("--gpu", "1", "--gpu-sim", "2", "--gpu-id", "0", "--private")
    return Job(words, pool_name(f"gpu-sim/{os.uname().nodename}", card))


@pytest.fixture
def alive() -> Callable[[int], bool]:
    def alive(pid: int) -> bool:
        """Whether a process is there. One that is gone, or a zombie, has let go of everything that it had."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] != "Z"

    return alive


# -- every store

SERVERS = {"redis": RedisServer, "etcd": EtcdServer, "zookeeper": ZooKeeperServer}
LIMITS = {"zookeeper": "?tick=0.2&max_ttl=60"}


@pytest.fixture(scope="session")
def servers():
    """A server of each kind, started when first asked for."""
    with contextlib.ExitStack() as stack:
        running: dict[str, str] = {}

        def url(store):
            if store not in running:
                running[store] = stack.enter_context(SERVERS[store]()).url() + LIMITS.get(store, "")
            return running[store]

        yield url


@pytest.fixture(params=["sqlite", *(pytest.param(store, marks=pytest.mark.full) for store in SERVERS)])
def place(request, lockkit, servers):
    """The name of the shell's store. Each test has a namespace: a server may keep claims of the last test."""
    url = f"sqlite:{lockkit.folder}/locks.db" if request.param == "sqlite" else servers(request.param)
    lockkit.env |= {
        "LOCKKIT_URL": url,
        "LOCKKIT_NAMESPACE": next(NAMESPACES),
        "LOCKKIT_REQUEST_TIMEOUT": "20s",  # loading a client's library counts towards its first request
    }
    return request.param


NAMESPACES = (f"test-{number}" for number in itertools.count())
NAMES = (one * 5 + other * 5 for one, other in itertools.product(string.ascii_lowercase, repeat=2))
"""Ordered names, of which no two share over half of their characters, so that none counts as similar."""


@pytest.fixture
def name():
    """A name that no other test uses, nor a similar one, because the tests share servers."""
    return next(NAMES)
