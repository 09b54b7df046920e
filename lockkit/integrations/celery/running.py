"""One run of a locked task: lock, run the function, release; or send the task again, skip it, or fail it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from kombu.exceptions import EncodeError

from lockkit.errors import AcquireCancelled, AcquireTimeout, ConfigError, LockkitError
from lockkit.facts import Skipped
from lockkit.integrations.celery.clients import client_of
from lockkit.integrations.celery.endings import reason_of
from lockkit.integrations.celery.exporting import exports
from lockkit.integrations.celery.held_by_child import Note, recorded
from lockkit.integrations.celery.refusals import PASSING, is_earlier, is_twin, stands, what_next
from lockkit.integrations.celery.retrying import HEADER, Wait, countdown, in_hand, wait_in
from lockkit.integrations.celery.signatures import lock_name
from lockkit.integrations.celery.skipping import skipped_document
from lockkit.integrations.celery.stopping import waits_end
from lockkit.integrations.celery.taking import Held, take
from lockkit.integrations.celery.time_limits import time_limits
from lockkit.integrations.celery.visibility import visibility_timeout
from lockkit.integrations.celery.worker_pool import check_pool
from lockkit.lib.environment import EnvironmentSet
from lockkit.lib.printable import printable
from lockkit.notes.members import POOLS, pool_name
from lockkit.sync.client import Client
from lockkit.sync.decorator import refuse_what_is_not_done
from lockkit.sync.lease import Lease
from lockkit.values import durations
from lockkit.values.identity import with_task

if TYPE_CHECKING:
    from celery import Task

    from lockkit.integrations.celery.options import LockOptions
    from lockkit.integrations.celery.signatures import Body

__all__ = ["Run", "held_by"]

_log = logging.getLogger("lockkit")
_held: ContextVar[tuple[tuple[str, Held], ...]] = ContextVar("lockkit_celery_held", default=())
_TELL_AFTER = 60.0
"""Seconds after which a task that waits is mentioned in the log as a warning."""


def held_by(task: str) -> Held | None:
    """The leases that the run of a task in this thread holds; None outside of a run."""
    return next((held for name, held in reversed(_held.get()) if name == task), None)


class Run:
    """One run of a task.

    Args:
        task: The task.
        options: The options of its lock.
        declared: The function with which it was declared.
        args: The arguments of the run.
        keywords: The run's arguments by name.
        request: Celery's request of the run; None for a direct call.
    """

    def __init__(
        self,
        task: Task,
        options: LockOptions,
        declared: Body,
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        request: Any,
    ) -> None:
        self._task = task
        self._args = args
        self._keywords = keywords
        self._request = request
        self._options = options
        self._declared = declared
        self._in_message = request is not None and not request.is_eager
        self._late = self._in_message and task.acks_late

    def __call__(self, body: Callable[..., Any]) -> Any:
        """Run the function of the task while it holds its lock.

        Args:
            body: The function.

        Raises:
            celery.exceptions.Retry: The lock is busy, or the worker is to stop; the task has been sent again.
            celery.exceptions.Reject: Another delivery has the lock, or the worker stops; it is requeued.
            AcquireTimeout: The wait is over.
            LeaseLost: The lock was lost while the function ran; its result is refused.
            LockkitError: The lock could not be taken for another reason.
        """
        try:
            return self._run(body)
        except LockkitError as error:
            error.carriable()  # what asks for the result gets all that it says
            raise
        except Retry as again:
            if isinstance(again.exc, LockkitError):
                again.exc.carriable()
            raise

    def _run(self, body: Callable[..., Any]) -> Any:
        client = client_of(self._task.app)
        check_pool(self._task.name, self._options.on_busy, client)
        name = self._name()
        now = time.time()
        wait = (
            Wait(now) if self._request is None else wait_in(self._request.headers, self._request.retries, now)
        )
        left = wait.left(now, self._options.max_wait)
        with recorded(client, self._note(client, name)) as exits:
            try:
                held = self._take(client, name, left)
            except PASSING as error:
                return self._without(client, name, error, wait, left, body)
            except AcquireCancelled as error:
                if not self._in_message:
                    raise
                self._hand_on(name, error, wait)
            try:
                with held:
                    return self._under(client, held, name, body, exits)
            finally:
                # A time limit may strike before the statement begins; its exception may keep this frame long.
                held.release()

    def _note(self, client: Client, name: str) -> Note:
        """The locks that this run may hold, for the worker's main process."""
        options, request = self._options, self._request
        config = client.config
        min_hold = config.min_hold if options.min_hold is None else options.min_hold
        lock_delay = config.lock_delay if options.lock_delay is None else options.lock_delay
        task_id = "" if request is None else str(request.id)
        names = () if options.lock is None else (name,)
        prefix = "" if names else POOLS if options.pool is None else pool_name(options.pool)
        return Note(names, prefix, self._words(), task_id, min_hold or 0.0, lock_delay or 0.0)

    def _name(self) -> str:
        options = self._options
        if options.lock is not None:
            return lock_name(options.lock, self._declared.signature, self._args, self._keywords)
        return options.pool or f"{options.gpu} GPU"

    def _take(self, client: Client, name: str, left: float | None) -> Held:
        options, request = self._options, self._request
        owner = client.owner
        if request is None:
            owner = with_task(owner, self._task.name)
        else:
            owner = with_task(owner, self._task.name, request.id, request.retries, request.hostname)
        # A direct call and an eager one wait here: there is no queue that they could go back to.
        here = options.on_busy == "wait" or (options.on_busy == "retry" and not self._in_message)
        if here and self._late and (request.delivery_info or {}).get("redelivered"):
            # A copy does not wait here for its twin: further copies would come meanwhile, and each would run.
            try:
                return take(client, options, name, owner, 0.0)
            except AcquireTimeout as error:
                if is_twin(error, request):
                    raise
        # The waits of a running function are its own; only that of a message ends when the worker stops.
        return take(
            client,
            options,
            name,
            owner,
            left if here else 0.0,
            waits_end() if here and self._in_message else None,
        )

    def _under(
        self,
        client: Client,
        held: Held,
        name: str,
        body: Callable[..., Any],
        exits: Callable[[], None] | None,
    ) -> Any:
        keywords = self._keywords
        if self._options.fence_as is not None and isinstance(held, Lease):
            keywords = {**keywords, self._options.fence_as: held.fence}
        around = _held.get()
        environment = EnvironmentSet(exports(client, held, gpus=self._options.gpu is not None))
        try:
            with environment:
                _held.set((*around, (self._task.name, held)))
                try:
                    result = body(*self._args, **keywords)
                    refuse_what_is_not_done(result, self._task.name, name)
                except BaseException as error:
                    if exits is not None and isinstance(error, SystemExit):
                        # Only the main process can prove that no program that the task started works on.
                        exits()
                        self._die(error)
                    held.release(reason_of(error))
                    raise
                finally:
                    _held.set(around)
                return result
        finally:
            # Again: a time limit, which strikes once, may have cut it short, and later tasks would see it.
            _held.set(around)
            environment.put_back()

    def _die(self, error: SystemExit) -> NoReturn:
        """End this pool process without a release: by ``os._exit``, as billiard would a moment later."""
        _log.info(
            "%s",
            printable(
                f"{self._words()} ends its process; its lock is free when all that it has started has ended"
            ),
        )
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        code = error.code
        os._exit(code if isinstance(code, int) else code is not None)

    def _without(
        self,
        client: Client,
        name: str,
        error: LockkitError,
        wait: Wait,
        left: float | None,
        body: Callable[..., Any],
    ) -> Any:
        """Send a task that got no lock again, or skip it, drop it, run it unlocked, or let it fail."""
        after = what_next(
            self._options,
            error,
            left,
            twin=is_twin(error, self._request),
            sendable=self._in_message,
            late=self._late,
            earlier=is_earlier(error, self._request),
        )
        if after == "again":
            pause = countdown(wait.tries, left, visibility_timeout(self._task.app.conf))
            self._send_again(
                name, error, wait, pause, f"tries again in {durations.show(pause)}: {error.message}"
            )
        if after == "back":
            self._keep_in_hand()  # meanwhile its twin may end
            raise self._given_back(name) from None
        if after == "drop":
            if self._late and not self._stands(client, error):
                raise self._given_back(name) from None
            _log.info(
                "%s",
                printable(
                    f"{self._words()} is dropped: "
                    f"another delivery of its message holds {name!r}: {error.message}"
                ),
            )
            raise Ignore(f"another delivery of this message holds {name!r}")
        if after == "skip":
            skipped = Skipped(error.name or name, error.holder)
            client._opening.skipped(skipped)  # noqa: SLF001
            return skipped if self._request is None else skipped_document(skipped)
        if after == "run":
            client._opening.counters.add("ran_unlocked")  # noqa: SLF001
            _log.warning("%s", printable(f"{self._words()} RUNS WITHOUT ITS LOCK {name!r}: {error.message}"))
            return body(*self._args, **self._keywords)
        raise self._failure(name, error, wait) from error

    def _words(self) -> str:
        """The task and its id, as Celery's own log has them."""
        task_id = None if self._request is None else self._request.id
        return self._task.name if task_id is None else f"{self._task.name}[{task_id}]"

    def _keep_in_hand(self) -> None:
        """Keep a message that is to go back to the broker for a moment: it may be delivered again at once."""
        limits = self._request.timelimit or (None, None)
        usual = time_limits(self._task, self._task.app.conf)
        pause = in_hand(visibility_timeout(self._task.app.conf), (*limits, *usual))
        with contextlib.suppress(SoftTimeLimitExceeded):  # it would fail the task in the name of its twin
            time.sleep(pause)

    def _given_back(self, name: str) -> Reject:
        """The end of a copy whose message goes back to the broker, under the same delivery tag.

        Redis removes the tag when the first run acknowledges it, and requeues nothing for a missing tag.
        """
        return Reject(printable(f"another delivery of this message holds {name!r}"), requeue=True)

    def _stands(self, client: Client, error: LockkitError) -> bool:
        """Whether the twin, some seconds later, still holds the lock; False if that is unknown."""
        self._keep_in_hand()
        holder = error.holder
        try:
            return holder is not None and stands(holder, client.inspect(holder.name))
        except LockkitError:
            return False

    def _failure(self, name: str, error: LockkitError, wait: Wait) -> LockkitError:
        """The error of a task that fails, with how long it has waited."""
        if not isinstance(error, AcquireTimeout):
            return error
        if not self._options.waits:
            how = 'on_busy="wait" waits for it, or ask who has it: lockkit explain NAME'
            return AcquireTimeout(error.message, name=error.name or name, holder=error.holder, hint=how)
        waited = durations.show(max(0.0, time.time() - wait.since))
        return AcquireTimeout(
            f"{self._words()} did not get its lock in {waited} (max_wait): {error.message}",
            name=error.name or name,
            holder=error.holder,
            hint="raise max_wait, or ask why: lockkit explain NAME",
        )

    def _hand_on(self, name: str, error: LockkitError, wait: Wait) -> NoReturn:
        """Let another worker wait for the lock, because this one is to stop."""
        then = "goes on in another worker, because this one is to stop"
        if self._late:
            raise Reject(printable(f"the wait for {name!r} {then}"), requeue=True) from None
        self._send_again(name, error, wait, 0.0, then)

    def _send_again(self, name: str, error: LockkitError, wait: Wait, pause: float, then: str) -> NoReturn:
        """Send the task again, to the end of its queue, and raise Retry. Its own retries are not counted.

        Args:
            name: The name of the lock.
            error: Why it was not taken.
            wait: The wait so far.
            pause: Seconds until the next try.
            then: The next step, in words.

        Raises:
            celery.exceptions.Retry: The task has been sent.
            celery.exceptions.Reject: The broker did not take it, so its message goes back to the queue.
            ConfigError: No serializer carries it.
            Exception: The broker refused it, with the message acknowledged: the task fails with that error.
        """
        request, task = self._request, self._task
        headers = {**(request.as_execution_options()["headers"] or {}), HEADER: wait.header()}
        again = task.signature_from_request(
            request, countdown=pause, retries=request.retries, headers=headers
        )
        waited = time.time() - wait.since
        level = logging.WARNING if waited >= _TELL_AFTER else logging.INFO
        text = f"waits for {name!r}, {durations.show(max(0.0, waited))} so far, and {then}"
        _log.log(level, "%s", printable(f"{self._words()} {text}"))
        try:
            again.apply_async()
        except EncodeError as trouble:  # a message that went back would meet it again, and again
            raise ConfigError(
                f"{self._words()} found {name!r} busy, and cannot be sent again: {trouble}",
                name=name,
                holder=error.holder,
                hint=f"the serializer is {again.options['serializer']!r}: "
                'send what it can carry, or write on_busy="wait"',
            ) from error
        except Exception as trouble:
            if task.acks_late:
                self._keep_in_hand()
                raise Reject(trouble, requeue=True) from trouble
            raise
        raise Retry(printable(text), exc=error, when=pause, sig=again) from error
