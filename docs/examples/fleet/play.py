"""A fleet on one machine: broker, lock store, two nodes; a deploy, a killed process, a hung node.

Needs redis-server and lockkit[celery,redis]. Runs on free ports of this host, and leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import lockkit

HERE = Path(__file__).parent
PATIENCE = 60.0
"""Seconds to wait for anything."""


class Fleet:
    """The processes of the play. Each node is a session of its own: a signal to its group hits all of it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockkit-fleet-")))
        self._running: list[subprocess.Popen[bytes]] = []
        stack.callback(self._end)
        broker, store = self._redis("broker"), self._redis("store")
        os.environ |= {
            "BROKER_URL": broker,
            "LOCKKIT_URL": store,
            "LOCKKIT_SCOPE": "fleet",
            "LEDGER": str(self.folder / "ledger"),
            "NODE_NAME": "operator",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        }
        self.nodes = {name: self.worker(name) for name in ("node-a", "node-b")}
        self.client = stack.enter_context(lockkit.connect())

    def _start(self, name: str, *words: str, **environ: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=log, env=os.environ | environ, start_new_session=True
            )
        self._running.append(process)
        return process

    def _redis(self, name: str) -> str:
        program = shutil.which("redis-server") or shutil.which("valkey-server") or sys.exit("no redis-server")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.folder), "--save", "")
        self._start(name, program, *options)

        def answers() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        until(answers, f"the {name} answers")
        return f"redis://127.0.0.1:{port}/0"

    def worker(self, node: str) -> subprocess.Popen[bytes]:
        """Start the worker of a node, as its pod would."""
        words = ("-m", "celery", "-A", "shop", "worker", "-c", "2", "-n", node, "-l", "INFO")
        told = {"NODE_NAME": node, "POD_NAME": f"worker-{node[-1]}", "POD_NAMESPACE": "shop"}
        return self._start(node, sys.executable, *words, "--without-gossip", "--without-mingle", **told)

    def _end(self) -> None:
        for process in self._running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(what: Callable[[], object], why: str) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE:g} s: {why}")
        time.sleep(0.02)


class Play:
    """The acts. Each sends orders, strikes, and waits until all orders are charged."""

    def __init__(self, fleet: Fleet) -> None:
        import shop  # now: it reads its URLs when it is imported

        self.fleet, self.shop, self.orders = fleet, shop, 0
        self.struck: set[object] = set()

    def send(self, account: str, seconds: float) -> str:
        self.orders += 1
        order = f"order-{self.orders}"
        self.shop.charge.delay(account, order, seconds)
        return order

    def event(self, what: str, order: str) -> Any:
        """The last event of this kind about an order; None if there is none yet."""
        found = [one for one in self.shop.events() if (one["what"], one["order"]) == (what, order)]
        return found[-1] if found else None

    def charged(self, *orders: str) -> None:
        for order in orders:
            until(lambda order=order: self.event("charged", order), f"{order} is charged")

    def deploy(self) -> str:
        orders = [self.send(f"account-{number % 3}", 0.5) for number in range(8)]
        until(lambda: self.event("begins", orders[0]), "the first order is begun")
        for node in ("node-a", "node-b"):
            worker = self.fleet.nodes[node]
            worker.terminate()  # only its first process, as Kubernetes does
            worker.wait(PATIENCE)
            self.fleet.nodes[node] = self.fleet.worker(node)
        self.charged(*orders)
        tries = sum(one["what"] == "begins" and one["order"] in orders for one in self.shop.events())
        return (
            f"deploy: both nodes were replaced, one after the other; "
            f"{len(orders)} orders were charged in {tries} tries"
        )

    def out_of_memory(self) -> str:
        order = self.send("account-1", 60)
        until(lambda: self.event("begins", order), "the order is begun")
        (holder,) = self.fleet.client.inspect("account:account-1").holders
        self.struck.add(holder.owner.pid)
        os.kill(holder.owner.pid, signal.SIGKILL)
        at = time.monotonic()
        self.charged(order)
        again = self.event("begins", order)
        return (
            f"out of memory: {holder.owner} was killed with fence {holder.fence}; "
            f"the order began again {again['at'] - at:.1f} s later with fence {again['fence']}"
        )

    def node_loss(self) -> str:
        order = self.send("account-2", 60)
        until(lambda: self.event("begins", order), "the order is begun")
        (holder,) = self.fleet.client.inspect("account:account-2").holders
        node = self.fleet.nodes[str(holder.owner.node)]
        self.struck.add(holder.owner.pid)
        os.killpg(node.pid, signal.SIGSTOP)
        self.charged(order)
        charged = self.event("charged", order)
        os.killpg(node.pid, signal.SIGCONT)
        until(lambda: self.event("refused", order), "the node that came back is told")
        return (
            f"node lost: {holder.owner.node} stood still while it held the lock with fence {holder.fence}; "
            f"{charged['node']} charged the order with fence {charged['fence']}; "
            f"{holder.owner.node} came back, and was told that it had lost the lock"
        )

    def verdict(self) -> str:
        """Look at the ledger as a whole.

        Raises:
            AssertionError: Something did not hold.
        """
        events = self.shop.events()
        charged = [one["order"] for one in events if one["what"] == "charged"]
        assert sorted(charged) == sorted({f"order-{number + 1}" for number in range(self.orders)}), charged
        at_work: dict[object, Any] = {}
        highest: dict[object, Any] = {}
        for one in events:
            account, before = one["account"], at_work.get(one["account"])
            if one["what"] == "begins":
                assert before is None or before["pid"] in self.struck, f"{one} beside {before}"
                assert one["fence"] > highest.get(account, 0), f"{one} after fence {highest[account]}"
                at_work[account], highest[account] = one, one["fence"]
            elif one["what"] == "charged":
                assert before is not None, one
                assert before["fence"] == one["fence"] == highest[account], f"{one} beside {before}"
                del at_work[account]
            elif (
                before is not None and before["fence"] == one["fence"]
            ):  # refused, and stopped its work before
                del at_work[account]
        return (
            f"held: {len(charged)} orders, each charged once, "
            "never two at work on one account, and fences rose"
        )


def main() -> None:
    with ExitStack() as stack:
        play = Play(Fleet(stack))
        for act in (play.deploy, play.out_of_memory, play.node_loss, play.verdict):
            print(act(), flush=True)


if __name__ == "__main__":
    main()
