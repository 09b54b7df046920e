"""Faults between the protocol and a store: requests and replies dropped, delayed, duplicated, interrupted.

Put :class:`FaultyBackend` around any backend, or let :func:`through` offer a store with faults to a client::

    faults = Faults()
    client = harness.client(url=FAULTY_URL, plugins=[through(harness, faults)])
    faults.add("acquire", drop_reply)          # the next acquire is applied, but its answer is lost
"""

# ruff: noqa: ARG001 - all faults are called with the same arguments, and not each of them needs all

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.store.spi import Backend, BackendSpec, Extras, OpenOptions, Refused, Unknown, Watch

__all__ = [
    "CALLS",
    "FAULTY_URL",
    "Fault",
    "Faults",
    "FaultyBackend",
    "black_hole",
    "delay",
    "delay_reply",
    "drop_reply",
    "drop_request",
    "duplicate",
    "interrupt",
    "interrupt_after",
    "late_copy",
    "refuse",
    "slow",
    "through",
]

FAULTY_URL = "faulty://store"
CALLS = (
    "acquire", "renew", "release", "abandon", "emergency_release", "inspect", "names", "evict", "resize",
    "extend", "annotate", "record", "put_record", "check",
)  # fmt: skip
"""Every call of a backend that sends a request to the store."""

Send = Callable[[], Any]


class Fault(Protocol):
    """A fault of one call. ``send`` calls the real store; the fault decides when and how often."""

    def __call__(self, faults: Faults, send: Send, budget: float, /) -> Any: ...


def _unknown(why: str) -> Unknown:
    return Unknown(OutcomeUnknown(f"fault injected: {why}"))


def drop_request(faults: Faults, send: Send, budget: float) -> Any:
    """The request never arrives, and the caller does not learn that."""
    raise _unknown("the request was dropped")


def drop_reply(faults: Faults, send: Send, budget: float) -> Any:
    """The request is applied; the answer never arrives."""
    send()
    raise _unknown("the reply was dropped")


def late_copy(faults: Faults, send: Send, budget: float) -> Any:
    """The request is under way and unanswered until :meth:`Faults.deliver` lets it arrive."""
    faults.late.append(send)
    raise _unknown("the request is still under way")


def duplicate(faults: Faults, send: Send, budget: float) -> Any:
    """The request arrives twice: now, and again when :meth:`Faults.deliver` is called."""
    faults.late.append(send)
    return send()


def refuse(faults: Faults, send: Send, budget: float) -> Any:
    """The request is refused; a later one may succeed."""
    raise Refused(BackendUnavailable("fault injected: refused"))


def black_hole(faults: Faults, send: Send, budget: float) -> Any:
    """The fault of a store that gives no answer within the budget."""
    faults.healed.wait(budget)
    raise _unknown("nothing answers")


def slow(seconds: float) -> Fault:
    """The answer takes the given seconds (real time). A caller with a smaller budget does not get it."""

    def fault(faults: Faults, send: Send, budget: float) -> Any:
        faults.healed.wait(min(seconds, budget))
        answer = send()
        if budget < seconds:
            raise _unknown("the answer took longer than the budget")
        return answer

    return fault


def delay(seconds: float) -> Fault:
    """The request takes the given seconds (real time) to reach the store."""

    def fault(faults: Faults, send: Send, budget: float) -> Any:
        faults.healed.wait(seconds)
        return send()

    return fault


def delay_reply(meanwhile: Callable[[], object]) -> Fault:
    """The request is applied at once, but ``meanwhile`` is called before the answer is read."""

    def fault(faults: Faults, send: Send, budget: float) -> Any:
        answer = send()
        meanwhile()
        return answer

    return fault


def interrupt(error: BaseException) -> Fault:
    """An exception such as Ctrl-C interrupts the call before anything was sent."""

    def fault(faults: Faults, send: Send, budget: float) -> Any:
        raise error

    return fault


def interrupt_after(error: BaseException) -> Fault:
    """Interrupt a call with an exception, as Ctrl-C does, between its effect on the store and its answer."""

    def fault(faults: Faults, send: Send, budget: float) -> Any:
        send()
        raise error

    return fault


@dataclass(slots=True)
class _Rule:
    method: str
    fault: Fault
    skip: int
    times: float


@dataclass(slots=True)
class Faults:
    """The faults that future calls will meet, and a log of the calls. Thread-safe.

    Attributes:
        late: The requests that are still under way; see :meth:`deliver`.
        log: The method of every call that was made.
        wakes: Whether wakes of watches arrive. If False, all of them are lost.
        healed: Set by :meth:`heal`; then calls that hang continue at once.
    """

    late: list[Send] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    wakes: bool = True
    healed: threading.Event = field(default_factory=threading.Event)
    _rules: list[_Rule] = field(default_factory=list)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def add(self, method: str, fault: Fault, *, skip: int = 0, times: float = 1) -> None:
        """Let calls of a method (``"*"``: of any method) meet a fault.

        The first ``skip`` calls succeed, and the next ``times`` calls meet the fault. If several faults apply
        to a call, it meets the one that was added first.
        """
        self.healed.clear()
        with self._mutex:
            self._rules.append(_Rule(method, fault, skip, times))

    def always(self, fault: Fault, *methods: str) -> None:
        """Let all calls (of these methods) meet the fault until :meth:`heal`."""
        for method in methods or ("*",):
            self.add(method, fault, times=float("inf"))

    def heal(self) -> None:
        """Remove all faults, and let calls that hang continue."""
        with self._mutex:
            self._rules.clear()
        self.healed.set()

    def deliver(self) -> list[Any]:
        """Deliver all delayed requests, in order. Returns what the store answered or raised."""
        late, self.late = self.late, []
        answers: list[Any] = []
        for send in late:
            try:
                answers.append(send())
            except (Refused, Unknown) as trouble:
                answers.append(trouble)
        return answers

    def take(self, method: str) -> Fault | None:
        """Log a call. Returns the fault that it meets, if there is one."""
        with self._mutex:
            self.log.append(method)
            for rule in self._rules:
                if rule.method not in (method, "*"):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
                return rule.fault
        return None


class FaultyBackend:
    """A backend whose calls meet faults. Everything else is done by the inner backend."""

    def __init__(self, inner: Backend, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.capabilities: Capabilities = inner.capabilities

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Any) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""
        return self.inner.watch(name, blockers, self._faulty(wake), claim)

    @property
    def extras(self) -> Extras:
        """See :class:`lockkit.store.spi.Extras`."""
        # Exchanges, and calls on an event loop, would pass by the faults.
        extras = self.inner.extras._replace(exchanges=None, at_once=False)
        listen, remove_many = extras.listen, extras.remove_many
        if listen is not None:
            extras = extras._replace(
                listen=lambda name, blockers, wake, claim: listen(name, blockers, self._faulty(wake), claim)
            )
        if remove_many is not None:
            extras = extras._replace(remove_many=self._meeting("remove_many", remove_many))
        return extras

    def _faulty(self, wake: Callable[[], None]) -> Callable[[], None]:
        return lambda: wake() if self.faults.wakes else None

    def __getattr__(self, method: str) -> Any:
        real = getattr(self.inner, method)
        return self._meeting(method, real) if method in CALLS else real

    def _meeting(self, method: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A call that meets faults."""

        def call(*args: Any, **keywords: Any) -> Any:
            fault = self.faults.take(method)
            if fault is None:
                return real(*args, **keywords)
            budget = keywords.get("budget", args[-1])
            return fault(self.faults, lambda: real(*args, **keywords), float(budget))

        return call


class Opens(Protocol):
    """Anything that opens the real store, such as a harness."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def url(self) -> str: ...

    def open(self, options: OpenOptions | None = None) -> Backend: ...


def through(opens: Opens, faults: Faults) -> object:
    """A plugin that offers the store, with ``faults`` in between, as :data:`FAULTY_URL`."""

    def open_store(url: str, options: OpenOptions) -> Any:
        return FaultyBackend(opens.open(options), faults)

    class Plugin:
        """A plugin with one store."""

        @hookimpl
        def lockkit_backends(self) -> list[BackendSpec]:
            spec = BackendSpec("faulty", ("faulty",), open_store, "with faults", opens.capabilities)
            return [spec]

    return Plugin()
