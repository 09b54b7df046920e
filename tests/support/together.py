"""Random mixes of locks, all_of, any_of and pools, on a real store: they always finish, and never overlap."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lockkit.errors import (
    AcquireCancelled,
    AcquireTimeout,
    BackendUnavailable,
    DeadlockDetected,
    LeaseLost,
    OutcomeUnknown,
)
from lockkit.notes.members import pool_name
from lockkit.shared.lease import AnyLease
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
from lockkit.sync.leases import Leases
from lockkit.testing.children import Child, Parent
from lockkit.testing.harness import Harness
from lockkit.values.choosers import Choice

__all__ = [
    "CRASHES",
    "MIXES",
    "OPPOSITE",
    "TWO_AT_ONCE",
    "Ledger",
    "Step",
    "endings",
    "mixed",
    "nothing_left",
    "patience",
    "play",
    "play_with_kills",
    "take",
    "ttl_for",
]

MEMBERS = {"0": 4, "1": 4, "2": 2, "1a": 1, "1b": 2}
WITHIN = {"1a": "1", "1b": "1"}
NAMES = ("a", "b", "c")
_ALL = (*NAMES, pool_name("p"), *(pool_name("p", member) for member in MEMBERS))
_LONG = 20.0
"""Seconds of a ttl that does not end within a test."""


Kind: TypeAlias = Literal["lock", "all", "any", "pool"]
_KINDS: Sequence[Kind] = ("lock", "all", "any", "pool", "pool")
Grant: TypeAlias = tuple[float, float, Mapping[str, tuple[int, int]]]
"""From when to when something was held, with the weight and the capacity of each name."""


@dataclass(frozen=True)
class Step:
    """One acquisition of an actor, and its end.

    Attributes:
        kind: How it acquires.
        names: The locks, or the members of the pool, the best first.
        count: The number of members.
        each: How much of each member; None for all of it.
        timeout: Seconds; None to wait for ever, 0 not to wait.
        shared: Whether it only reads what has a reader's side.
        end: How it ends: by a release, an error of the body, or the crash of its client; ``close``
            closes the client while it may still wait.
        hold: Seconds for which it holds.
        chooses: Whether it has a chooser, which changes its mind.
    """

    kind: Kind
    names: tuple[str, ...]
    count: int = 1
    each: int | None = None
    timeout: float | None = None
    shared: bool = False
    end: Literal["release", "error", "crash", "close"] = "release"
    hold: float = 0.002
    chooses: bool = False


class Fickle:
    """A chooser that changes its mind at random. Once it was asked often, every member will do."""

    every = 0.01

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._left = 20

    def choose(self, held: Sequence[str]) -> Choice:
        refused = {name: "not now" for name in self._names if self._changes()}
        return Choice([name for name in self._names if name not in refused and name not in held], refused)

    def judge(self, member: str) -> str | None:  # noqa: ARG002
        return "dirty" if self._changes() else None

    def _changes(self) -> bool:
        self._left -= 1
        return self._left > 0 and random.random() < 0.3


_TIMEOUTS = st.sampled_from([None, None, None, 0.0, 0.02])
_ENDS = st.sampled_from(["release"] * 8 + ["error", "close"])
_NAMES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple)
_MEMBERS = st.permutations(list(MEMBERS)).map(tuple)


def _request(
    names: Sequence[str], count: int, each: int | None, *, slices: bool
) -> tuple[tuple[str, ...], int, int | None]:
    """A request that can be met: either for slices of the second member, or for that member."""
    names = tuple(name for name in names if (name not in WITHIN if not slices else name != "1"))
    fits = sum(each is None or MEMBERS[name] >= each for name in names)
    return names, min(count, fits), each


STEPS = st.one_of(
    st.builds(Step, st.just("lock"), st.sampled_from([(name,) for name in NAMES]),
              timeout=_TIMEOUTS, shared=st.booleans(), end=_ENDS),
    st.builds(Step, st.just("all"), _NAMES, timeout=_TIMEOUTS, shared=st.booleans(), end=_ENDS),
    st.builds(Step, st.just("any"), _NAMES, timeout=_TIMEOUTS, shared=st.booleans(), end=_ENDS),
    st.builds(
        lambda request, timeout, end, chooses: Step(
            "pool", request[0], request[1], request[2], timeout, end=end, chooses=chooses),
        st.builds(
            _request, _MEMBERS, st.integers(1, 3), st.sampled_from([None, 1, 2, 4]), slices=st.booleans()),
        _TIMEOUTS,
        _ENDS,
        st.booleans(),
    ),
)  # fmt: skip
MIXES = st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=2, max_size=4)
"""A list of steps for each actor, which the actor takes one after the other."""

OPPOSITE = [
    [Step("all", ("a", "b", "c"))] * 5,
    [Step("all", ("c", "b", "a"))] * 5,
    [Step("any", ("b", "c")), Step("lock", ("b",)), Step("any", ("c", "b"))] * 2,
]
"""Actors that give their locks in opposite orders."""
TWO_AT_ONCE = [[Step("pool", ("0", "1"), 2)] * 8, [Step("pool", ("1", "0"), 2)] * 8]
"""Actors that both want the same two members, and begin with different ones."""

CRASHES = [
    [Step("all", ("a", "b"), end="crash"), Step("any", ("a", "c"))],
    [Step("pool", ("0", "1"), 2, end="crash"), Step("pool", ("0", "1", "2"), 2)],
    [Step("lock", ("b",)), Step("pool", ("1", "0"), 1, 2), Step("all", ("c", "a"))],
]
"""Actors whose clients vanish while they hold."""


def mixed(
    fewest: int, *, one_in: int = 50, slow: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a test given random mixes, after those that have found mistakes.

    Args:
        fewest: The number of mixes.
        one_in: Under a profile of Hypothesis with more examples, one mix for so many of these.
        slow: Whether the test uses a fixture, which makes its store slow for all its mixes.
    """
    checks = [*HealthCheck] if slow else settings().suppress_health_check

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for known in (CRASHES, TWO_AT_ONCE, OPPOSITE):
            test = example(mix=known)(test)
        count = max(fewest, settings().max_examples // one_in)
        return settings(max_examples=count, suppress_health_check=checks)(given(mix=MIXES)(test))

    return decorate


class Ledger:
    """The leases that are held now; the sum of their weights never exceeds the capacity of their lock."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: dict[str, list[AnyLease]] = {}
        self.grants = 0
        self.overlaps: list[str] = []

    @contextmanager
    def holds(self, leases: Sequence[AnyLease]) -> Iterator[None]:
        with self._mutex:
            self.grants += 1
            for lease in leases:
                held = self._held.setdefault(lease.name, [])
                held.append(lease)
                # valid() is sound, so of those that are valid at one moment the store records every one.
                weights = [one.terms.weight for one in held if one.valid()]
                if sum(weights) > lease.terms.capacity:
                    self.overlaps.append(f"{lease.name}: {weights} of {lease.terms.capacity}")
        try:
            yield
        finally:
            with self._mutex:
                for lease in leases:
                    self._held[lease.name].remove(lease)


def take(client: Any, step: Step, ttl: float) -> Any:
    """Acquire with a client of either face; None if busy. The result of the asyncio face must be awaited."""
    if step.kind == "pool":
        pool = client.pool("p", MEMBERS, within=WITHIN, ttl=ttl)
        chooser = Fickle(step.names) if step.chooses else None
        return pool.acquire(
            step.count, each=step.each, among=step.names, chooser=chooser, timeout=step.timeout
        )
    locks = [_lock(client, name, step, ttl) for name in step.names]
    if step.kind == "lock":
        return locks[0].acquire(step.timeout)
    several = client.all_of(locks) if step.kind == "all" else client.any_of(locks)
    return several.try_acquire() if step.timeout == 0 else several.acquire(step.timeout)


def endings(step: Step) -> tuple[type[Exception], ...]:
    """The errors in which a step of a mix may end.

    A step with a timeout may be its client's first, or the first with its ttl. On a machine too busy to
    connect or answer in that time, it ends in BackendUnavailable or OutcomeUnknown, as these errors document.
    A step without a timeout may not.
    """
    always = AcquireTimeout, AcquireCancelled, LeaseLost, DeadlockDetected
    return always if step.timeout is None else (*always, BackendUnavailable, OutcomeUnknown)


def _lock(client: Any, name: str, step: Step, ttl: float) -> Any:
    if name == "a":
        return client.lock(name, ttl=ttl)
    if name == "b":
        both = client.rwlock(name, ttl=ttl)
        return both.read() if step.shared else both.write()
    return client.semaphore(name, 2, permits=1 if step.shared else 2, ttl=ttl)


class Actor(threading.Thread):
    """One thread with clients of its own, which makes one step after the other."""

    def __init__(self, harness: Harness, steps: Sequence[Step], ledger: Ledger, ttl: float) -> None:
        super().__init__(daemon=True)
        self._harness = harness
        self._steps = steps
        self._ledger = ledger
        self._ttl = ttl
        self.client: Client | None = None
        self.at: Step | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for step in self._steps:
                self.at = step
                self._make(step)
            self.at = None
        except BaseException as error:
            self.error = error

    def _make(self, step: Step) -> None:
        if self.client is None:
            self.client = self._harness.client(request_timeout=5.0)
        client = self.client
        closer = threading.Timer(0.01, client.close) if step.end == "close" else None
        if closer is not None:
            self.client = None
            closer.start()
        with suppress(*endings(step)):
            taken = take(client, step, self._ttl)
            if taken is not None:
                self._use(client, taken, step)
        if closer is not None:
            closer.join()

    def _use(self, client: Client, taken: Lease | Leases, step: Step) -> None:
        leases = list(taken) if isinstance(taken, Leases) else [taken]
        if step.end == "crash":
            with self._ledger.holds(leases):
                time.sleep(step.hold)
            self._harness.crash(client)
            self.client = None
            return
        with suppress(ZeroDivisionError), taken, self._ledger.holds(leases):
            time.sleep(step.hold)
            if step.end == "error":
                raise ZeroDivisionError


def play(make: Callable[[Path], Harness], mix: Sequence[Sequence[Step]], *, limit: float = 60.0) -> int:
    """Let actors take their steps together; check ends, overlaps, leftovers. Returns the grants.

    Args:
        make: Makes the store.
        mix: The steps of each actor.
        limit: Seconds after which an actor hangs.
    """
    with tempfile.TemporaryDirectory(prefix="lockkit-together-") as folder:
        harness = make(Path(folder))
        try:
            return _play(harness, mix, limit)
        finally:
            harness.close()


def _play(harness: Harness, mix: Sequence[Sequence[Step]], limit: float) -> int:
    crashes, ttl = ttl_for(harness, mix)
    ledger = Ledger()
    actors = [Actor(harness, steps, ledger, ttl) for steps in mix]
    for actor in actors:
        actor.start()
    end = time.monotonic() + limit
    for actor in actors:
        actor.join(max(end - time.monotonic(), 0.0))
    hung = [actor.at for actor in actors if actor.is_alive()]
    try:
        assert not hung, f"never finished: {hung}"
        for actor in actors:
            if actor.error is not None:
                raise actor.error
        assert not ledger.overlaps, ledger.overlaps
        nothing_left(harness, patience(crashes, ttl))
    finally:
        for actor in actors:
            if actor.client is not None:
                actor.client.close()
        for actor in actors:
            actor.join(30.0)
    return ledger.grants


def ttl_for(harness: Harness, mix: Sequence[Sequence[Step]]) -> tuple[bool, float]:
    """Whether a client vanishes in a mix, and the ttl for it: short if one does."""
    crashes = any(step.end == "crash" for steps in mix for step in steps)
    return crashes, max(2.0, harness.short_ttl) if crashes else max(harness.ttl, min(_LONG, 3 * harness.ttl))


def patience(crashes: bool, ttl: float) -> float:  # noqa: FBT001
    """Seconds until nothing of a mix is left: under a ttl, unless a client vanished, whose claims need it."""
    return 30.0 if crashes else max(3.0, ttl / 2)


def nothing_left(harness: Harness, patience: float) -> None:
    """Check that no claim is left, within some seconds."""
    with harness.client() as observer:
        end = time.monotonic() + patience
        while left := [name for name in _ALL if observer.inspect(name).claims]:
            assert time.monotonic() < end, f"left in the store: {left}"
            time.sleep(0.01)


# -- processes that are killed ------------------------------------------------------------------------------


def play_with_kills(make: Callable[[Path], Harness], *, seconds: float, kills: int) -> int:
    """Let processes take locks together, and kill some anywhere; the others must go on, without overlap.

    Args:
        make: Makes the store, which other processes can reach.
        seconds: How long they go on after the last kill.
        kills: The number of processes that are killed, one after the other; each is replaced.

    Returns:
        The number of grants.
    """
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="lockkit-together-") as folder:
        harness = make(Path(folder))
        ttl = max(2.0, harness.short_ttl)
        children: list[_Heard] = []
        told: list[Grant] = []

        def begin(number: int) -> None:
            children.append(_Heard(Child(lambda parent: _worker(parent, harness, ttl, seed + number))))

        try:
            for number in range(3):
                begin(number)
            for kill in range(kills):
                time.sleep(chance.uniform(0.3, 1.0))
                victim = children.pop(chance.randrange(len(children)))
                os.kill(victim.child.pid, signal.SIGKILL)
                told += victim.all_grants()
                victim.child.close()
                begin(10 + kill)
            free = time.monotonic() + ttl + harness.slack  # what the last one held has lapsed by then
            time.sleep(seconds + ttl + harness.slack)
            for child in children:
                child.child.tell("stop")
            rest = [child.all_grants() for child in children]
            assert all(any(left > free for _, left, _ in grants) for grants in rest), (
                f"one hangs, seed {seed}"
            )
            told += [grant for grants in rest for grant in grants]
        finally:
            for child in children:
                child.child.close()
            harness.close()
    _never_overlap(told, f"seed {seed}")
    return len(told)


def _worker(parent: Parent, harness: Harness, ttl: float, seed: int) -> None:
    """One process: takes locks together until its parent says something, and reports each hold to it."""
    chance = random.Random(seed)
    stopped = threading.Event()

    def listen() -> None:
        parent.hear()
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    with harness.client() as client:
        while not stopped.is_set():
            kind: Kind = chance.choice(_KINDS)
            names, count, each = tuple(chance.sample(NAMES, 3)), 1, None
            if kind == "pool":
                order = chance.sample(list(MEMBERS), len(MEMBERS))
                slices = chance.random() < 0.5
                names, count, each = _request(
                    order, chance.randint(1, 3), chance.choice([None, 1, 2]), slices=slices
                )
            shared, chooses = chance.random() < 0.3, chance.random() < 0.3
            step = Step(kind, names, count, each, shared=shared, chooses=chooses)
            # On a machine that stands still for a ttl, a hold is lost, or a grant runs out before it is used.
            with suppress(LeaseLost, BackendUnavailable), take(client, step, ttl) as taken:
                leases = list(taken) if isinstance(taken, Leases) else [taken]
                began = time.monotonic()
                time.sleep(0.005)
                ended = time.monotonic()
                if all(lease.valid() for lease in leases):
                    weights = {lease.name: (lease.terms.weight, lease.terms.capacity) for lease in leases}
                    parent.tell([began, ended, weights])


class _Heard(threading.Thread):
    """A process, and the thread that reads its reports: an unread process stops once its pipe is full."""

    def __init__(self, child: Child) -> None:
        super().__init__(daemon=True)
        self.child = child
        self._grants: list[Grant] = []
        self.start()

    def run(self) -> None:
        with suppress(EOFError, ConnectionError):
            while (said := self.child.read(30.0)) is not None:
                assert isinstance(said, list), said
                self._grants.append((said[0], said[1], said[2]))

    def all_grants(self) -> list[Grant]:
        """The holds that a process that was killed, or is to end, has told of."""
        self.join(35.0)
        return self._grants


def _never_overlap(told: Sequence[Grant], where: str) -> None:
    """Check that the weights of the holds of a name that stood at one moment never exceeded its capacity."""
    for began, _, weights in told:
        for name, (_, capacity) in weights.items():
            at_once = [other[name][0] for start, end, other in told if name in other and start <= began < end]
            assert sum(at_once) <= capacity, f"{name}: {at_once} of {capacity}, {where}"
