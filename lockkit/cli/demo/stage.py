"""The course of the demo: five workers, one killed while it holds, one stopped past its ttl; then checks."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lockkit.cli.demo import history
from lockkit.cli.demo.history import Check, Entry, HeldSpan
from lockkit.cli.demo.worker import GO, HOLD, NAME, READY, Job, connect
from lockkit.lib.clock import SYSTEM

__all__ = ["Play", "play"]

KILLED, STOPPED = "bob", "cat"
_TTL = 1.5
_LIMIT = 60.0
"""Seconds after which the demo gives up on its workers."""
_HELD = 20.0
"""Seconds for which a worker to be killed or stopped holds the lock if a busy machine is late."""
_SOON = 10.0
"""Seconds within which the lock goes on, even on a busy machine: far less than a process-bound ttl."""
_STOPPED_FOR, _AT_MOST = _TTL + 1.0, 15.0
"""Seconds for which one worker is stopped: until another has the lock, also on a busy machine."""
_ROUNDS = {"ann": 2, KILLED: 2, STOPPED: 2, "dan": 2, "eve": 2}
_AT_LEAST = 9  # all rounds but the killed one's second


@dataclass(frozen=True, slots=True)
class Play:
    """The history of one demo, and the results of its checks."""

    logs: Mapping[str, list[Entry]]
    holds: list[HeldSpan]
    stopped: Mapping[str, tuple[float, float]]
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def play(
    folder: Path, tell: Callable[[str], None], break_: str | None = None, url: str | None = None
) -> Play:
    """Run the demo in an empty folder.

    Args:
        folder: A folder for store, FIFOs and logs, which the caller removes.
        tell: Called with a sentence for each thing that happens.
        break_: A fault to cause on purpose: ``overlap``, ``fence`` or ``leftover``.
        url: An empty store; None for a file in the folder, where a hold ends with its process.
    """
    stage = _Stage(folder, tell, url)
    # Longer than a worker is stopped, when nobody is sure of the lock: else an overlap may be missed.
    rounds = {"overlap": 12, "fence": 3}.get(break_ or "", 0)
    with stage.workers(cheat=rounds, late=break_ == "fence"):
        stage.run()
    if break_ == "leftover":
        _leave_one(folder, url)
    logs = stage.logs()
    holds = [hold for worker, lines in logs.items() for hold in history.holds(worker, lines)]
    checks = [
        history.no_overlap(holds, _AT_LEAST),
        history.fences_rise(holds),
        stage.death_freed_it(holds),
        stage.stop_was_noticed(logs, holds),
        stage.all_ended(),
        _nothing_left(folder, url),
    ]
    return Play(logs, holds, {STOPPED: stage.stopped} if stage.stopped else {}, checks)


class _Stage:
    def __init__(self, folder: Path, tell: Callable[[str], None], url: str | None) -> None:
        self._folder = folder
        self._url = url
        self._tell = tell
        self._began = SYSTEM.now()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._cheat: Job | None = None
        self._told: dict[str, int] = {}
        self._killed_at: float | None = None
        self._stopped_at: float | None = None
        self._continued_at: float | None = None

    @property
    def stopped(self) -> tuple[float, float] | None:
        if self._stopped_at is None or self._continued_at is None:
            return None
        return self._stopped_at, self._continued_at

    @contextmanager
    def workers(self, *, cheat: int, late: bool) -> Iterator[None]:
        """Start the workers in a known order, and end them all at the end, whatever happens.

        Args:
            cheat: For how many rounds one more worker works without the lock; 0 for no such worker.
            late: Whether it begins when the others are done.
        """
        cheating = Job("mal", str(self._folder), rounds=cheat, cheat=True) if cheat else None
        connect(str(self._folder), self._url).close()
        try:
            for worker, rounds in _ROUNDS.items():
                bound = worker != STOPPED and self._url is None
                self._start(
                    Job(
                        worker,
                        str(self._folder),
                        rounds,
                        ttl=30.0 if bound else _TTL,
                        first=_HELD if worker in (KILLED, STOPPED) else HOLD,
                        process_bound=bound,
                        url=self._url,
                    )
                )
            if late:
                self._cheat = cheating
            elif cheating is not None:
                self._start(cheating)
            self._let_go()
            yield
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _let_go(self) -> None:
        """Have all workers begin together, once all are ready or one has ended."""
        end = self._began + _LIMIT
        while not all((self._folder / f"{worker}{READY}").exists() for worker in self._processes):
            if SYSTEM.now() > end or any(process.poll() is not None for process in self._processes.values()):
                break
            time.sleep(0.01)
        (self._folder / GO).touch()

    def run(self) -> None:
        """Watch, kill, stop and continue workers until all of them are done."""
        end = self._began + _LIMIT
        while SYSTEM.now() < end:
            self._narrate()
            self._act()
            running = any(process.poll() is None for process in self._processes.values())
            if self._cheat is not None and not running:
                self._start(self._cheat)
                self._cheat = None
                continue
            if not running:
                break
            time.sleep(0.01)
        self._narrate()

    def logs(self) -> dict[str, list[Entry]]:
        return {worker: history.read(self._folder / f"{worker}.log") for worker in self._processes}

    # -- checks

    def death_freed_it(self, holds: list[HeldSpan]) -> Check:
        """Check that kill -9 of the holder freed the lock: at once if process-bound, else after its ttl."""
        if self._killed_at is None:
            return Check("kill", False, f"{KILLED} was never killed while it held the lock")
        later = sorted(hold.start for hold in holds if hold.start > self._killed_at)
        if not later:
            return Check("kill", False, "nobody got the lock after the kill")
        waited = later[0] - self._killed_at
        if self._url is None:
            took = f"{waited * 1000:.0f} ms after kill -9 of its holder the lock went on"
            return Check("kill", waited < _SOON, took)
        took = f"{waited:.1f} s after kill -9 of its holder the lock went on; its ttl is {_TTL} s"
        return Check("kill", waited < _TTL + _SOON, took)

    def stop_was_noticed(self, logs: Mapping[str, list[Entry]], holds: list[HeldSpan]) -> Check:
        """Check that the stopped holder lost its lock after the ttl, and noticed that first."""
        if self._stopped_at is None or self._continued_at is None:
            return Check("stop", False, f"{STOPPED} was never stopped while it held the lock")
        others = [hold for hold in holds if self._stopped_at < hold.start < self._continued_at]
        told = [line for line in logs.get(STOPPED, []) if line.t >= self._continued_at]
        if not others:
            return Check("stop", False, "nobody got the lock while its holder was stopped past the ttl")
        if not told or told[0].event != "lost":
            return Check(
                "stop", False, f"{STOPPED} was continued and did not learn that it had lost the lock"
            )
        return Check(
            "stop", True, f"{STOPPED}, stopped past its ttl, learned at once that it had lost the lock"
        )

    def all_ended(self) -> Check:
        """Check that all workers ended well, and the killed one by the kill."""
        codes = {worker: process.returncode for worker, process in self._processes.items()}
        wrong = {
            worker: code
            for worker, code in codes.items()
            if code != (-signal.SIGKILL if worker == KILLED else 0)
        }
        if wrong:
            return Check(
                "ended", False, f"ended badly: {', '.join(f'{who} ({code})' for who, code in wrong.items())}"
            )
        return Check("ended", True, f"{len(codes)} processes have ended")

    # -- the story

    def _start(self, job: Job) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
        # Run the same code as this process, whatever is in the working directory.
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._processes[job.worker] = subprocess.Popen(
            [sys.executable, "-m", "lockkit.cli.demo.worker", job.to_json()],
            env=environ,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C goes to this process, which ends the workers
        )

    def _narrate(self) -> None:
        fresh: list[tuple[float, str]] = []
        for worker, lines in self.logs().items():
            said = {
                "holds": "holds the lock",
                "lost": "learns that it has lost the lock",
                "released": "releases it",
            }
            done = self._told.get(worker, 0)
            fresh += [(line.t, f"{worker} {said[line.event]}") for line in lines[done:] if line.event in said]
            self._told[worker] = len(lines)
        for t, sentence in sorted(fresh):
            self._say(t, sentence)

    def _act(self) -> None:
        now = SYSTEM.now()
        if self._killed_at is None and self._holds_for(KILLED, now) > 0.15:
            self._processes[KILLED].kill()
            self._processes[KILLED].wait()
            self._killed_at = now
            self._say(now, f"kill -9 {KILLED}")
        if self._stopped_at is None and self._holds_for(STOPPED, now) > 0.15:
            self._processes[STOPPED].send_signal(signal.SIGSTOP)
            self._stopped_at = now
            self._say(now, f"{STOPPED} is stopped (SIGSTOP); its ttl is {_TTL} s")
        if self._continued_at is None and self._stopped_at is not None and self._overtaken(now):
            self._continued_at = now
            self._say(now, f"{STOPPED} is continued")
            self._processes[STOPPED].send_signal(signal.SIGCONT)

    def _overtaken(self, now: float) -> bool:
        """Whether the stopped worker has been stopped for long enough."""
        since = self._stopped_at or now
        if now < since + _STOPPED_FOR:
            return False
        held = (line for lines in self.logs().values() for line in lines if line.event == "holds")
        return now > since + _AT_MOST or any(line.t > since for line in held)

    def _holds_for(self, worker: str, now: float) -> float:
        lines = history.read(self._folder / f"{worker}.log")
        last = next((line for line in reversed(lines) if line.event != "sure"), None)
        return now - last.t if last is not None and last.event == "holds" else 0.0

    def _say(self, t: float, sentence: str) -> None:
        self._tell(f"{t - self._began:6.2f} s  {sentence}")


def _nothing_left(folder: Path, url: str | None) -> Check:
    """Check that no claims and no FIFOs are left."""
    with connect(str(folder), url) as client:
        claims = sum(len(client.inspect(name).claims) for name in client.names(deep=True))
        claims = max(claims, len(client.inspect(NAME).claims))
    pipes = sum(stat.S_ISFIFO(path.lstat().st_mode) for path in folder.rglob("*"))
    if claims or pipes:
        return Check("leftovers", False, f"left behind: {claims} claims, {pipes} FIFOs")
    what = "no claims, no FIFOs, no processes" if url is None else "no claims, no processes"
    return Check("leftovers", True, f"nothing is left behind: {what}")


def _leave_one(folder: Path, url: str | None) -> None:
    with connect(str(folder), url) as client:
        client.lock(NAME, ttl=60.0, auto_renew=False, pulseless=True).acquire(timeout=5).hand_over()
