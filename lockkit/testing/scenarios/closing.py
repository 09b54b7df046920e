"""L4, S9: a signal handler that raises, at every place in ``client.close()``, once and twice."""

from __future__ import annotations

import gc
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from lockkit.errors import AcquireCancelled
from lockkit.sync.client import Client
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.scenarios.interrupted import Cleaner, unraisable
from lockkit.testing.scenarios.leaks import footprint
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import Stage, scenario

__all__ = ["Closings"]

_BOUND = 30.0
"""Seconds after which a close, also in the background, counts as endless. On an idle machine it takes 2."""
_MOST, _MOST_TWICE = 80, 40
"""Places at which one scenario strikes, by chance if there are more. Each costs clients of its own."""
_FURTHEST = 20
"""A second Ctrl-C comes at most so many places after the first."""
_HOLDS = 3

After = Literal["again", "dropped", "kept"]
"""The program's next step after Ctrl-C: close the client again; drop client and leases; nothing."""
_AFTER: Sequence[After] = ("again", "dropped", "kept")


class Closings:
    """Clients that hold something, each closed with Ctrl-C at one place.

    If close() had not started by then, nothing of it is seen. Else it completes, whatever the program does.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        # Where nobody closes the client once more, the next heartbeat does.
        self._ttls: dict[After, float] = {
            "again": stage.long_ttl,
            "dropped": stage.long_ttl,
            "kept": stage.harness.ttl,
        }
        self._names = [f"{stage.name}/{number}" for number in range(_HOLDS)]
        self._begun: list[str] = []
        self._seed = random.randrange(1 << 30)
        self._chance = random.Random(self._seed)
        for after in _AFTER:  # everything lazy has happened
            self._round(Bomb(1 << 30), after)
        gc.collect()
        self._before, self._residue = footprint(), stage.harness.residue()

    def once(self) -> None:
        """Ctrl-C at every place; at some of them, where there are very many."""
        for at in self._places(_MOST):
            for after in _AFTER:
                if not self._round(Bomb(at), after):
                    break  # the others would show the same
        # From CPython 3.12 on, a trace function is told of fewer of the opcodes.
        assert len(self._begun) > 10, f"the bomb hardly ever went off: {self._begun}"
        self._nothing_is_left()

    def twice(self) -> None:
        """Ctrl-C at some places, and again soon."""
        for at in self._places(_MOST_TWICE):
            self._round(Bomb(at, self._chance.randint(1, _FURTHEST)), self._chance.choice(_AFTER))
        self._nothing_is_left()

    def _places(self, most: int) -> Sequence[int]:
        count = Bomb(1 << 30)
        self._round(count, "again")
        return count.places(most, self._chance)

    def _round(self, bomb: Bomb, after: After) -> bool:
        """Close a client, and see what is left; whether close() had begun."""
        stage = self._stage
        cleaner = Cleaner()
        client = stage.harness.client(plugins=[cleaner])
        engine = client.driver()
        locks = [stage.holder(client, name=name, ttl=self._ttls[after]) for name in self._names]
        leases = [lock.acquire(_BOUND) for lock in locks]
        claims = Counter(lease.claim_id for lease in leases)
        waiting = None
        if after != "dropped":
            stage.on_close(client.close)  # where this fails
            for lease in leases:
                stage.kept(lease)
            waiting = stage.waiting(locks[0])
        with warnings.catch_warnings(), unraisable():
            warnings.simplefilter("ignore", ResourceWarning)
            self._close(client, bomb)
            begun = engine.closed
            where = (
                f"after Ctrl-C at {bomb.where or 'no place'} and {bomb.again or 'no more'}, "
                f"{after}, seed {self._seed}"
            )
            if begun and bomb.where:
                self._begun.append(where)
            if not begun:
                assert all(lease.valid() for lease in leases), (
                    f"S9: close() has not begun, a lease ended {where}"
                )
                assert not cleaner.runs, f"S9: close() has not begun, and hooks ran {where}"
            if after == "again" or not begun:
                with stage.within(_BOUND, f"a second close() {where}"):
                    client.close()
                assert self._stored() == [], f"L4: claims stay {where}"
            if after == "dropped":
                del client, locks, leases
                gc.collect()
        stage.until(lambda: self._stored() == [], f"L4: claims stay {where}", _BOUND)
        stage.until(lambda: not engine.heartbeat.running, f"L4: threads stay {where}", _BOUND)
        assert cleaner.runs == claims, f"S9: hooks ran {list(cleaner.runs.values())} times {where}"
        if waiting is not None:
            error = waiting.error(_BOUND)
            assert isinstance(error, AcquireCancelled), f"L4: the wait ended with {error!r} {where}"
        if after != "dropped":
            outcomes = [lease.report and lease.report.outcome for lease in leases]
            assert outcomes == ["RELEASED"] * _HOLDS, f"L4: {outcomes} {where}"
        return begun

    def _close(self, client: Client, bomb: Bomb) -> None:
        with self._stage.within(_BOUND, "close()"):
            try:
                with bomb:
                    client.close()
            except CtrlC:
                pass

    def _stored(self) -> list[object]:
        return [row for name in self._names for row in self._stage.stored(name)]

    def _nothing_is_left(self) -> None:
        stage = self._stage
        gc.collect()
        before = self._before
        with suppress(AssertionError):  # which could not say what is left
            stage.until(lambda: footprint() - before == Counter(), "nothing is left", _BOUND)
        left = footprint() - before
        assert not left, f"L4: {left} is left, beside {before} of before, seed {self._seed}"
        assert stage.harness.residue() == self._residue


@scenario("L4-interrupted-close", (MUTEX,))
def interrupted_close(stage: Stage) -> None:
    """Ctrl-C anywhere in ``client.close()``: not started, or completed by a second close or in background."""
    Closings(stage).once()


@scenario("L4-interrupted-close-twice", (MUTEX,))
def interrupted_close_twice(stage: Stage) -> None:
    """Ctrl-C twice in quick succession in ``client.close()``: the same as once."""
    Closings(stage).twice()
