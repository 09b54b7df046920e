"""L4, S9, S10: a signal handler raises at every place where CPython lets one through, once and twice."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lockkit.facts import CleanupContext
from lockkit.hooks import hookimpl
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import Stage, scenario

__all__ = ["Cleaner", "Sweep", "unraisable"]

_MOST, _MOST_ELSEWHERE, _MOST_TWICE = 400, 120, 60
"""The largest number of places that one scenario interrupts: once, in a store inside the process and in
other stores; and twice. If there are more places, it chooses some at random."""
_FURTHEST = 40
"""The largest number of places between the first and the second Ctrl-C."""


class Cleaner:
    """A plugin that counts its runs for each claim."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    @hookimpl
    def lockkit_cleanup(self, context: CleanupContext) -> None:
        self.runs[context.claim_id] += 1


class Sweep:
    """One way to use a lock, interrupted at every place.

    Args:
        use: Uses the lock. It appends to the list each lease that its program keeps afterwards.
        cleanup: Whether there is a cleanup hook.
        again: Whether the program calls release again.
        beside: Further modules, in addition to lockkit and the stores, in which it is interrupted.
        options: The options of the lock.
    """

    def __init__(
        self,
        stage: Stage,
        use: Callable[[Lock, list[Lease]], None],
        *,
        cleanup: bool = False,
        again: bool = False,
        beside: tuple[str, ...] = (),
        **options: bool,
    ) -> None:
        self._stage = stage
        self._use = use
        self._cleaner = Cleaner()
        self.ttl = stage.lasting(least=1.5)
        client = stage.client(plugins=[self._cleaner] if cleanup else [])
        self._lock = stage.holder(client, ttl=self.ttl, **options)
        self._cleanup = cleanup
        self._again = again
        self._beside = beside
        with self._lock.acquire(10.0):  # everything lazy has happened
            pass
        self._late: list[str] = []
        self._struck = 0
        self._seed = random.randrange(1 << 30)
        self._chance = random.Random(self._seed)

    def once(self) -> None:
        """Ctrl-C at every place; at some of them, where a store has very many."""
        inside = self._stage.harness.capabilities.scope == "process"
        places = self._places(_MOST if inside else _MOST_ELSEWHERE)
        frozen = gc.get_freeze_count()  # by whoever runs the kit
        gc.collect()
        gc.freeze()  # a collection after a strike need not look through everything that was there before
        try:
            for at in places:
                self._strike(Bomb(at, beside=self._beside))
        finally:
            if not frozen:
                gc.unfreeze()
        struck = self._struck
        # From CPython 3.12 on, a trace function is told of fewer of the opcodes.
        assert struck > (60 if sys.version_info < (3, 12) else 20), "the bomb hardly ever went off"
        assert len(self._late) <= max(struck / 8, 8), (
            f"of {struck} places these left the claim to its ttl: {self._late}"
        )

    def twice(self) -> None:
        """Ctrl-C at some places, and again soon."""
        chance = self._chance
        for at in self._places(_MOST_TWICE):
            then = min(chance.randint(1, _FURTHEST), chance.randint(1, _FURTHEST))
            self._strike(Bomb(at, then, self._beside))

    def _places(self, most: int) -> Sequence[int]:
        count = Bomb(1 << 30, beside=self._beside)
        with count:
            self._use(self._lock, [])
        return count.places(most, self._chance)

    def _strike(self, bomb: Bomb) -> None:
        """Use it once, and see what is left."""
        kept: list[Lease] = []
        caught: list[
            BaseException
        ] = []  # as a console keeps the last traceback, and what its frames refer to
        with warnings.catch_warnings(), unraisable():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                with bomb:
                    self._use(self._lock, kept)
            except CtrlC as error:
                if kept:
                    caught.append(error)
            self._struck += bool(bomb.where)
            if self._beside:  # the frames of others may stand in a cycle with what they raise
                gc.collect()
            where = f"after Ctrl-C at {bomb.where} and {bomb.again or 'no more'}, seed {self._seed}"
            self._ends(where, kept)
        if self._cleanup:
            for claim, runs in self._cleaner.runs.items():
                assert runs == 1, f"S9: cleanup of {claim} ran {runs} times {where}"
            for lease in kept:  # a second Ctrl-C ends the waiting for a hook, not the hook
                claim = lease.claim_id
                self._stage.until(
                    partial(self._cleaner.runs.__getitem__, claim), f"S9: no cleanup of {claim} {where}"
                )
            self._cleaner.runs.clear()

    def _ends(self, where: str, kept: list[Lease]) -> None:
        """Check that no claim without a lease is left, and that a new acquire gets the lock."""
        stage = self._stage
        for lease in kept if self._again else ():
            stage.work(lease.release).result()
        began = time.monotonic()
        stage.until(lambda: stage.stored() == [], f"L4: the claim stays {where}", self.ttl + 3.0)
        if time.monotonic() - began > self.ttl / 2:
            self._late.append(where)
        error = stage.work(lambda: self._lock.acquire(10.0).release()).error()
        assert error is None, f"{where}: {error!r}"
        for lease in kept:
            report = stage.work(lease.release).result()
            assert report.outcome in ("RELEASED", "LOST", "KEPT"), f"{report} {where}"


@contextlib.contextmanager
def unraisable() -> Iterator[None]:
    """Ctrl-C in a finalizer is nobody's: CPython has nowhere to raise it.

    From CPython 3.12 on the tracer may strike where a generator is closed, which no signal can: then the
    generator goes on, and CPython complains.
    """
    before = sys.unraisablehook

    def hook(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, CtrlC) and "GeneratorExit" not in str(what.exc_value):
            before(what)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _lease_form(lock: Lock, kept: list[Lease]) -> None:
    with lock.acquire(10.0) as lease:
        kept.append(lease)


def _short_form(lock: Lock, kept: list[Lease]) -> None:
    with lock:
        kept.append(lock.lease)


def _stack(lock: Lock, kept: list[Lease]) -> None:  # noqa: ARG001
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock)


def _nested(lock: Lock, kept: list[Lease]) -> None:
    with lock.acquire(10.0) as lease, lock, lock.acquire(10.0) as inner:
        kept.extend((lease, inner))


def _released(lock: Lock, kept: list[Lease]) -> None:
    lease = lock.acquire(10.0)
    kept.append(lease)
    try:
        lease.release()
    finally:
        lease.release()


def _dropped(lock: Lock, kept: list[Lease]) -> None:  # noqa: ARG001
    lock.acquire(10.0).release()


@scenario("L4-interrupted-anywhere", (MUTEX,))
def anywhere(stage: Stage) -> None:
    """Ctrl-C at any bytecode of acquire and release: the claim goes, at once or by ttl; no thread hangs."""
    Sweep(stage, _dropped).once()


@scenario("L4-interrupted-with", (MUTEX,))
def with_lease(stage: Stage) -> None:
    """Ctrl-C anywhere in ``with lock.acquire() as lease:``: one cleanup, no claim, though ``lease`` lives."""
    Sweep(stage, _lease_form, cleanup=True).once()


@scenario("L4-interrupted-short-form", (MUTEX,))
def with_lock(stage: Stage) -> None:
    """Ctrl-C anywhere in ``with lock:``: no lease stays held without an owner."""
    Sweep(stage, _short_form, cleanup=True).once()


@scenario("L4-interrupted-exit-stack", (MUTEX,))
def exit_stack(stage: Stage) -> None:
    """Ctrl-C anywhere in a ``contextlib.ExitStack`` block, or in its own code: no unowned lease is held."""
    Sweep(stage, _stack, cleanup=True, beside=("contextlib",)).once()


@scenario("L4-interrupted-levels", (MUTEX,))
def levels(stage: Stage) -> None:
    """Ctrl-C anywhere in entering and leaving reentrant levels: the last level releases the lock, once."""
    Sweep(stage, _nested, cleanup=True, reentrant=True).once()


@scenario("S10-interrupted-release", (MUTEX,))
def released(stage: Stage) -> None:
    """Ctrl-C anywhere in release: a second release continues where the first ended; each hook runs once."""
    Sweep(stage, _released, cleanup=True, again=True).once()


@scenario("L4-interrupted-twice", (MUTEX,))
def twice(stage: Stage) -> None:
    """Ctrl-C twice in quick succession in acquire and release: the same as once."""
    Sweep(stage, _lease_form, cleanup=True).twice()
    Sweep(stage, _short_form, cleanup=True).twice()


@scenario("L4-interrupted-levels-twice", (MUTEX,))
def levels_twice(stage: Stage) -> None:
    """Ctrl-C twice in quick succession in the levels of a reentrant lock: the same as once."""
    Sweep(stage, _nested, cleanup=True, reentrant=True).twice()


@scenario("S10-interrupted-release-twice", (MUTEX,))
def released_twice(stage: Stage) -> None:
    """Ctrl-C twice in quick succession in a release with a cleanup hook: the same as once."""
    Sweep(stage, _released, cleanup=True, again=True).twice()
