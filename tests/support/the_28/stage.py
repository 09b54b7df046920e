"""The stage of one scenario: a namespace of the store, its tasks and workers, and the audit of them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from msgspec.structs import replace

import lockkit
from lockkit.config.config import load
from lockkit.errors import BackendError
from lockkit.facts import Alert, Capabilities, CleanupContext, Event
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.hooks import hookimpl
from lockkit.notes.members import pool_name
from lockkit.observe import journal
from lockkit.observe.audit import audit
from lockkit.observe.history import read_history
from lockkit.observe.past import StoreKey
from lockkit.plugins import PluginManager
from lockkit.store.spi import Backend, OpenOptions, Refused
from lockkit.testing.faults import FAULTY_URL, Faults, Send, black_hole, delay, drop_request, through
from lockkit.testing.processes import scratch_folder
from lockkit.values.history import Period
from support.servers.proxy import Proxy
from support.the_28.stores import Store
from support.the_28.worker import (
    JOB,
    ThreadWorker,
    Worker,
    WorkerProcess,
    take_turns,
    take_turns_in_processes,
)

__all__ = ["Cable", "Stage", "Task"]

_PATIENCE = 30.0
"""Seconds: a bound on the slowness of the machine."""


class Cable:
    """A task's way to the store: a proxy before its server, or, without a server, faults of every request."""

    def __init__(self, proxy: Proxy | None, faults: Faults) -> None:
        self._proxy = proxy
        self._faults = faults

    def hold(self) -> None:
        """Deliver nothing more: neither end notices."""
        if self._proxy is not None:
            self._proxy.hold()
        else:
            self._faults.always(black_hole)

    def cut(self) -> None:
        """Reset every connection, and every new one."""
        if self._proxy is not None:
            self._proxy.cut()
        else:
            self._faults.always(drop_request)

    def drop(self) -> None:
        """Reset every connection once."""
        if self._proxy is not None:
            self._proxy.drop()
        else:
            self._faults.add("*", drop_request)

    def heal(self) -> None:
        """Pass everything on again."""
        if self._proxy is not None:
            self._proxy.heal()
        else:
            self._faults.heal()


def _broken_script(_faults: Faults, _send: Send, _budget: float) -> object:
    raise Refused(BackendError("ERR the script is broken"), retry=False)


class _Told:
    """A plugin that keeps the events and alerts of its client."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.alerts: list[Alert] = []

    @hookimpl
    def lockkit_event(self, event: Event) -> None:
        self.events.append(event)

    @hookimpl
    def lockkit_alert(self, alert: Alert) -> None:
        self.alerts.append(alert)


class _Cleans:
    """A plugin with a cleanup hook."""

    def __init__(self, clean: Callable[[CleanupContext], object]) -> None:
        self._clean = clean

    @hookimpl
    def lockkit_cleanup(self, context: CleanupContext) -> None:
        self._clean(context)


class _Behind:
    """The store itself, behind the faults of one task."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def capabilities(self) -> Capabilities:
        return PluginManager(()).backend(self.url).capabilities

    def open(self, options: OpenOptions | None = None) -> Backend:
        return PluginManager(()).open(self.url, options or OpenOptions())


class Task:
    """A program that takes locks.

    Attributes:
        client: The client.
        cable: The way to the store.
        folder: The state folder, with the journal of critical failures.
    """

    def __init__(
        self, client: lockkit.Client, told: _Told, faults: Faults, cable: Cable, folder: Path
    ) -> None:
        self.client = client
        self.cable = cable
        self.folder = folder
        self._told = told
        self._faults = faults
        self._taken: list[lockkit.Lease] = []

    def lock(self, **terms: Any) -> lockkit.Lock:
        """The lock ``job``."""
        return self.client.lock(JOB, **terms)

    def take(self, **terms: Any) -> lockkit.Lease:
        """Take ``job``; what the scenario does not release, the end of the task does."""
        lease = self.lock(**terms).acquire(_PATIENCE)
        self._taken.append(lease)
        return lease

    def finds_it_free(self) -> bool:
        """Whether it could take ``job`` now."""
        lease = self.lock().try_acquire()
        if lease is not None:
            lease.release()
        return lease is not None

    def count(self, name: str) -> int:
        """One of its counters."""
        return self.client.stats()[name]

    def events(self, *kinds: str) -> list[Event]:
        """The events of these kinds so far."""
        self._flush()
        return [event for event in self._told.events if event.kind in kinds]

    def alerts(self) -> list[Alert]:
        """The alerts so far."""
        self._flush()
        return list(self._told.alerts)

    def held_cards(self) -> list[int]:
        """The simulated cards that somebody holds: some of 0 and 1."""
        cards = [card.uuid for card in SimulatedProvider(2).snapshot().devices]
        names = [pool_name(f"gpu-sim/{os.uname().nodename}", card) for card in cards]
        return [index for index, name in enumerate(names) if self.client.inspect(name).holders]

    def failures(self) -> list[dict[str, object]]:
        """The records of critical failures."""
        return journal.read(self.folder)

    # -- what goes wrong with its requests

    def normal_layer_fails(self) -> None:
        """Have the store answer its normal releases with the error of a broken script, from now on."""
        self._faults.always(_broken_script, "release", "abandon")

    def all_layers_fail(self) -> None:
        """Have the store answer every release of it so, from now on."""
        self._faults.always(_broken_script, "release", "abandon", "emergency_release")

    def next_release_meets_a_broken_script(self) -> None:
        """Have the store answer its next request for a release with the error of a broken script."""
        self._faults.add("release", _broken_script)

    def next_release_takes(self, seconds: float) -> None:
        """Have its next request for a release take so long to reach the store."""
        self._faults.add("release", delay(seconds))

    def releases_come_twice_and_late(self) -> list[str]:
        """Carry out each of its releases twice at the same moment, and once later; returns their answers."""
        answers: list[str] = []

        def carried_out(send: Send) -> str:
            answers.append(str(send()))
            return answers[-1]

        def doubled(faults: Faults, send: Send, _budget: float) -> str:
            faults.late.append(lambda: carried_out(send))
            with ThreadPoolExecutor(2) as pool:
                return max(pool.map(carried_out, [send, send]))  # RELEASED, if one of them was

        self._faults.always(doubled, "release")
        return answers

    def deliver_what_is_late(self) -> None:
        """Have the late copies of its requests carried out."""
        self._faults.deliver()

    def requests(self, kind: str) -> int:
        """How many requests of a kind it has sent, if ``breakable``."""
        return self._faults.log.count(kind)

    def heal(self) -> None:
        """Let all its requests be answered again."""
        self._faults.heal()
        self.cable.heal()

    def end(self) -> None:
        """Heal it, and release what it has taken."""
        self.heal()
        for lease in self._taken:
            lease.release()

    def _flush(self) -> None:
        self.client.driver().dispatcher.flush(_PATIENCE)


class Stage:
    """One scenario on one store; a context manager that ends everybody, and then audits the past.

    Attributes:
        store: The store.
        ttl: Seconds: a ttl whose end a scenario awaits; on etcd whole seconds, on ZooKeeper many ticks.
        long: Seconds: the ttl of everybody else, which no scenario waits for.
    """

    ttl = 2.0
    long = 60.0

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            self._audit()

    # -- who plays

    def task(
        self,
        *,
        breakable: bool = False,
        wired: bool = False,
        cleanup: Callable[[CleanupContext], object] | None = None,
        folder: Path | None = None,
        **settings: Any,
    ) -> Task:
        """A task in this process, with a client of its own.

        Args:
            breakable: Whether its requests can be made to fail.
            wired: Whether its cable can be cut. Without a server, its requests are made to fail instead.
            cleanup: A cleanup hook.
            folder: The state folder; by default a new one.
            settings: Settings of its client.
        """
        told, faults = _Told(), Faults()
        proxy = self._proxied() if wired else None
        url = self.store.url(self._folder, None if proxy is None else proxy.address)
        plugins: list[object] = [told, *([_Cleans(cleanup)] if cleanup else [])]
        if breakable or (wired and proxy is None):
            plugins.append(through(_Behind(url), faults))
            url = FAULTY_URL
        folder = folder or self._folder / f"task-{len(list(self._folder.iterdir()))}"
        folder.mkdir(exist_ok=True)
        config = load(
            environ={},
            cwd=self._folder,
            home=self._folder,
            etc=self._folder / "etc.toml",
            **self._settings(url) | {"state_dir": str(folder), "gpu_simulate": 2} | settings,
        )
        client = self._stack.enter_context(lockkit.connect(config=config, plugins=plugins))
        task = Task(client, told, faults, Cable(proxy, faults), folder)
        self._stack.callback(task.end)
        return task

    def worker(self, ttl: float | None = None) -> Worker:
        """A worker that takes ``job`` and holds it while it lives, in its own process if the store allows."""
        ttl = ttl or self.long
        worker: Worker
        if self.store.in_processes:
            worker = WorkerProcess(self._settings(self.store.url(self._folder)), ttl)
        else:
            worker = ThreadWorker(self.task().client, ttl)
        self._stack.callback(worker.close)
        return worker

    def workers(self, number: int, seconds: float) -> list[Period]:
        """Have workers with clients of their own take the lock once at the same time; returns after the last.

        Up to five are processes of their own, more share two. Returns the periods of certain holds.
        """
        if self.store.in_processes:
            processes = number if number <= 5 else 2
            url = self.store.url(self._folder)
            return take_turns_in_processes(processes, number // processes, self._settings(url), seconds)
        clients = [self.task().client for _ in range(number)]
        with ThreadPoolExecutor(number) as pool:
            return list(pool.map(lambda client: take_turns(client, seconds), clients))

    def delete_by_hand(self) -> None:
        """Delete the claims of ``job`` as a stranger does who knows the store and not lockkit."""
        server, namespace = self.store.server, self._folder.name
        match self.store.name:
            case "memory":  # a stranger is in the same process, and has nothing but lockkit
                client = self.task().client
                for claim in client.inspect(JOB).claims:
                    client.evict(JOB, claim.claim_id, reason="by hand", now=True)
            case "sqlite":
                with closing(sqlite3.connect(self._folder / "store" / "locks.db", timeout=_PATIENCE)) as file:
                    file.execute("DELETE FROM entries WHERE namespace <> ''")
                    file.commit()
            case "redis":
                server.cli("FLUSHALL")
            case "zookeeper":
                with server.connect() as hand:
                    hand.delete(f"/lockkit/{namespace}/q", recursive=True)
            case _:
                server.ctl("del", "--prefix", f"lockkit/{namespace}/")

    @contextmanager
    def full_disk(self) -> Iterator[Path]:
        """A folder on a completely full file system; skips the scenario where this user may not mount one."""
        # Not in pytest's own, which a mount that a killed test left would stay in.
        disk = scratch_folder("disk")
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "lockkit-test", str(disk)]
        with ExitStack() as undo:
            undo.callback(disk.rmdir)
            try:
                done = subprocess.run(mount, capture_output=True, check=False)
            except FileNotFoundError:
                pytest.skip("there is no mount")
            if done.returncode:
                pytest.skip("this user may not mount a file system")
            undo.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
            undo.callback(self._stack.close)
            _fill(disk)
            yield disk

    # -- behind the curtain

    def _settings(self, url: str) -> dict[str, Any]:
        return {
            "url": url,
            "namespace": self._folder.name,
            "ttl": self.long,
            "state_dir": str(self._folder),
            "journal": True,
            "journal_folder": str(self._folder / "journal"),
        }

    def _proxied(self) -> Proxy | None:
        proxy = self.store.proxy()
        return None if proxy is None else self._stack.enter_context(proxy)

    def _audit(self) -> None:
        """Check by all event journals that no two holds overlapped, and that the fences rose."""
        past = read_history([self._folder / "journal"]) if (self._folder / "journal").exists() else None
        if past is None:
            return
        # Whatever the URL by which each task knew it.
        one = StoreKey(self.store.name, os.fspath(self._folder.name))
        found = audit(past._replace(holds=tuple(replace(hold, key=one) for hold in past.holds)))
        assert found.violations == (), found.violations


def _fill(disk: Path) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
