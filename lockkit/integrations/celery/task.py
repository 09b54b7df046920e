"""The base class of tasks that run only while they hold a lock."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from celery import Task
from kombu.serialization import registry

from lockkit.errors import ConfigError, NotHeld
from lockkit.integrations.celery import fitting_app
from lockkit.integrations.celery.misspelt import check_names
from lockkit.integrations.celery.options import (
    NAMES,
    LockOptions,
    OnBusy,
    OnDuplicate,
    OnUnavailable,
    checked,
)
from lockkit.integrations.celery.running import Run, held_by
from lockkit.integrations.celery.signatures import LOCKED, Body, body_of
from lockkit.sync.lease import Lease
from lockkit.sync.pools import PoolLeases

if TYPE_CHECKING:
    from lockkit.gpu import GpuLeases

__all__ = ["LockedTask"]


class LockedTask(Task):
    """A task whose function runs only while it holds a lock, in whichever worker.

    For example::

        @app.task(bind=True, base=LockedTask, lock="invoice:{invoice_id}", ttl=30, max_wait=600)
        def bill(self, invoice_id):
            self.lease.beat(message="reading")

    The lock is taken in the worker, just before the function is called, and released when it has returned or
    raised; ``before_start``, ``on_success``, ``on_failure`` and other handlers run without it. Sending never
    waits: lockkit locks the execution, and drops no message. A direct call, even of ``run``, and ``apply()``
    take the lock, too, and wait for it where a message would be sent again.

    If the lock is lost meanwhile, ``self.lease.lost`` is set. The function is not interrupted, but its result
    is refused: the task fails with :class:`~lockkit.errors.LeaseLost`.

    Attributes:
        lock: The name of the lock, or a template for the task's arguments: ``"invoice:{invoice_id}"``.
        capacity: The permits of a semaphore; None for a plain lock.
        permits: The permits that a run takes.
        pool: The name of a pool of which a run takes members.
        members: The members of the pool; None for those of ``[pools.NAME]`` in the configuration.
        count: The number of members.
        each: How much of each member's capacity to take; None for whole members.
        gpu: The number of GPUs of the worker's host to take.
        gpu_mem: The memory of each GPU to take, ``"8GiB"`` or bytes; None for whole GPUs.
        ttl: Seconds that the store keeps a dead worker's claim; None for the configured ttl, or else 60 s.
        on_busy: For a busy lock: ``retry`` (in 2 to 30 s, at the end of the queue), ``wait`` (in the worker),
            ``skip`` (see :func:`~lockkit.integrations.celery.skipped_in`) or ``fail``.
        max_wait: Seconds to wait in total until :class:`~lockkit.errors.AcquireTimeout`; None for ever.
        on_duplicate: ``skip`` to drop a message while another delivery of it holds the lock. Else, with
            ``acks_late``, it is requeued until that one ends, whatever ``on_busy`` says; without, it is sent
            again if busy tasks are, and else dropped.
        on_unavailable: While the store cannot be used: ``retry`` (the default if ``on_busy`` is), ``fail``,
            or ``run``: **without its lock**, with a warning in the log each time.
        max_hold: Seconds after which a hold is ended; None for the configuration's.
        min_hold: Seconds for which the lock stays blocked from its grant on, even if the task ends earlier.
        lock_delay: Seconds for which the lock stays blocked after a hold that ended without a release.
        fence_as: The keyword argument of the function that gets the fence.
        lock_options: The options as they were checked.
        lock_body: The function of the task.
    """

    abstract = True
    Request = "lockkit.integrations.celery.request:LockedRequest"

    lock: str | None = None
    capacity: int | None = None
    permits: int = 1
    pool: str | None = None
    members: Sequence[str] | Mapping[str, int] | None = None
    count: int = 1
    each: int | None = None
    gpu: int | None = None
    gpu_mem: str | int | None = None
    ttl: float | None = None
    on_busy: OnBusy = "retry"
    max_wait: float | None = None
    on_duplicate: OnDuplicate | None = None
    on_unavailable: OnUnavailable | None = None
    max_hold: float | None = None
    min_hold: float | None = None
    lock_delay: float | None = None
    fence_as: str | None = None

    lock_options: ClassVar[LockOptions] = LockOptions()
    _lock_body: ClassVar[Body | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "_decorated" in vars(cls):  # the options of @app.task; a class may have attributes of its own
            bases = {name for base in cls.__mro__[1:] for name in vars(base)}
            check_names(_name_of(cls), vars(cls), bases)
        cls._check()

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Check the options again, with the configuration of the application, which may change them."""
        cls._check()
        if cls._lock_body is not None:
            fitting_app.check(_name_of(cls), cls.lock_options, cls, app.conf)

    @classmethod
    def _check(cls) -> None:
        cls._lock_body = body_of(cls, Task)
        cls.lock_options = checked(
            _name_of(cls), {name: getattr(cls, name) for name in NAMES}, cls._lock_body
        )
        run = inspect.getattr_static(cls, "run")
        if cls._lock_body is not None and not hasattr(run, LOCKED):
            cls.run = _LockedRun(run)

    def signature_from_request(
        self,
        request: Any = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **options: Any,
    ) -> Any:
        """The message that sends a run again, for its function or a busy lock: with its own serializer."""
        about = (self.request if request is None else request).properties or {}
        name = registry.type_to_name.get(about.get("content_type"), self.serializer)
        return super().signature_from_request(request, args, kwargs, queue, **{"serializer": name, **options})

    @property
    def lock_body(self) -> Body:
        """The function of the task."""
        body = self._lock_body
        if body is None:
            raise ConfigError(f"{_name_of(type(self))} is a base class of tasks: it has no function to run")
        return body

    @property
    def lease(self) -> Lease:
        """The lease of the lock that this run holds.

        Raises:
            NotHeld: The run holds nothing, or pool members or GPUs: see :attr:`leases` and :attr:`gpus`.
        """
        held = self._held_now()
        if not isinstance(held, Lease):
            raise NotHeld(
                f"{self.name} holds members of a pool, each with a lease of its own", hint="use self.leases"
            )
        return held

    @property
    def leases(self) -> PoolLeases:
        """The leases of the members, or GPUs, that this run holds.

        Raises:
            NotHeld: The run holds nothing now, or a single lock: see :attr:`lease`.
        """
        held = self._held_now()
        if isinstance(held, Lease):
            raise NotHeld(f"{self.name} holds a single lock", hint="use self.lease")
        return held

    @property
    def gpus(self) -> GpuLeases:
        """The leases of the GPUs that this run holds, with their ``devices`` and ``environment()``.

        Raises:
            NotHeld: The run holds no GPU now.
        """
        if self.lock_options.gpu is None:
            raise NotHeld(f"{self.name} holds no GPU", hint="gpu=1 makes it hold one")
        return cast("GpuLeases", self.leases)

    def _held_now(self) -> Lease | PoolLeases:
        held = held_by(self.name)
        if held is None:
            raise NotHeld(
                f"{self.name} holds no lock here",
                hint="its lock is held only while its function runs, "
                "and in threads that the function starts with a copy of its context",
            )
        return held

    def _locked(
        self, body: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any], *, outermost: bool
    ) -> Any:
        """Run a function under the task's lock for any caller: Celery's tracer, a ``__call__``, a program."""
        stack = self.request_stack
        request = stack.top
        runs = request is not None and getattr(request, LOCKED, None) is request
        if runs and not outermost:
            return body(*args, **keywords)
        if request is None or runs:
            return Task.__call__(
                self, *args, **keywords
            )  # a direct call: makes a request, and comes here again
        # Celery makes the request of a direct call from that around it, with all its attributes.
        direct = request.called_directly or (request._protected and len(stack) > 1)  # noqa: SLF001
        # As Celery's own __call__ does in a worker: a call of the task by its own function is another run.
        request._protected = 1  # noqa: SLF001
        setattr(request, LOCKED, request)
        try:
            given = None if direct else request
            return Run(self, self.lock_options, self.lock_body, args, keywords, given)(body)
        finally:
            setattr(request, LOCKED, None)


class _LockedRun:
    """The ``run`` of a task, which takes the lock, also for a later ``task.run = f`` (``autoretry_for``).

    ``__call__`` takes no lock: another base class may have its own, which only calls ``run`` (as Flask's).
    """

    def __init__(self, found: Any) -> None:
        self.lockkit_locked = found

    def __get__(self, task: LockedTask | None, owner: type | None = None) -> Callable[..., Any]:
        if task is None:
            return self._of_class(owner)
        body, own = self.lockkit_locked.__get__(task), inspect.getattr_static(type(task), "run") is self
        if own:  # not by super().run()
            body = task.__dict__.get("run", body)

        @functools.wraps(body)
        def run(*args: Any, **keywords: Any) -> Any:
            # A function that was set in its place calls the one that it has found there before.
            outermost = own and task.__dict__.get("run", body) is body
            return task._locked(body, args, keywords, outermost=outermost)  # noqa: SLF001

        return run

    def _of_class(self, owner: type | None) -> Callable[..., Any]:
        """The function of the class, which a ``__call__`` may call with the task as its first argument."""
        found = cast("Callable[..., Any]", self.lockkit_locked.__get__(None, owner))
        if isinstance(self.lockkit_locked, (staticmethod, classmethod)):
            return found

        @functools.wraps(found)
        def run(*args: Any, **keywords: Any) -> Any:
            if args and isinstance(args[0], LockedTask):
                return self.__get__(args[0])(*args[1:], **keywords)
            return found(*args, **keywords)  # by a test, with something else in the place of the task

        return run

    def __set__(self, task: LockedTask, run: Callable[..., Any]) -> None:
        task.__dict__["run"] = run

    def __delete__(self, task: LockedTask) -> None:
        del task.__dict__["run"]


def _name_of(task: type) -> str:
    return str(getattr(task, "name", None) or task.__qualname__)
