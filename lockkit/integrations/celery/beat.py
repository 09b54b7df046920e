"""A scheduler for ``celery beat`` of which many may run: the one with the lock sends, the others stand by.

::

    celery -A proj beat --scheduler lockkit.integrations.celery.beat:LockedScheduler
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from celery.beat import PersistentScheduler, Scheduler
from celery.utils.imports import symbol_by_name

from lockkit.errors import (
    AcquireTimeout,
    BackendUnavailable,
    ConfigError,
    Drained,
    LeaseLost,
    NotHeld,
    OutcomeUnknown,
)
from lockkit.facts import Reason
from lockkit.integrations.celery.beat_runs import Overtaken, Runs
from lockkit.integrations.celery.clients import BEAT, PREFIX, given_to, settings_of
from lockkit.sync.client import Client, connect
from lockkit.sync.lease import Lease

__all__ = ["LockedScheduler"]

logger = logging.getLogger(__name__)

_SETTINGS = ("lock", "scheduler", "ttl")
_PATIENCE = 10.0
"""The longest tick of a standby beat, in seconds. A beat that runs as a thread ends between ticks only."""
_STORE_AGAIN = 5.0
"""Seconds until a store is asked again that did not answer, or whose namespace is drained."""


class LockedScheduler(Scheduler):
    """A scheduler that sends only while it holds a lock; otherwise it stands by until the holder is gone.

    Another scheduler decides what is sent and when: Celery's own, or any subclass of
    ``celery.beat.Scheduler``, opened when the lock is granted and closed when it is lost.

    Nothing is sent without the lock, which is checked immediately before each message is handed to the
    broker. No due time gets two messages, even if a stopped beat wakes up in one, because runs are recorded
    in the store first; see :class:`~lockkit.integrations.celery.beat_runs.Runs`. A recorded run whose message
    fails is skipped. If the holder was killed, another beat takes over within the ttl.

    Settings of the Celery app:
        lockkit_beat_lock: The name of the lock; ``celery-beat:`` and the app's name unless set.
        lockkit_beat_ttl: The ttl in seconds; that of the configuration of lockkit unless set.
        lockkit_beat_scheduler: The scheduler that decides, as a class or its path.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        options.pop("lazy", None)
        self._settings = _settings(app)
        super().__init__(app, lazy=True, max_interval=options.get("max_interval"))
        self._options = options
        self._client: Client | None = None
        self._lease: Lease | None = None
        self._term: Any = None
        self._pause = 0.0
        self._told: object = None

    # -- what beat calls

    def tick(self, *args: Any, **keywords: Any) -> float:
        """Send what is due under the lock, or wait for it. Returns the seconds until the next call."""
        if self._lease is not None and not self._lease.valid():
            self._step_down("lost")
        if self._term is None and not self._take_over():
            return self._pause
        lease = self._lease
        assert lease is not None
        pause: float = self._term.tick(*args, **keywords)
        if self._term is not None and self._term.ended:
            self._step_down("normal")
            return 0.0
        return min(pause, lease.ttl / 3)  # a lost lock is noticed, and asked for again

    def sync(self) -> None:
        """Write the schedule to where the scheduler that decides keeps it."""
        if self._term is not None:
            self._term.sync()

    def close(self) -> None:
        """Close the schedule and release the lock, which frees it for another beat. Idempotent."""
        self._step_down("normal")
        client, self._client = self._client, None
        if client is not None:
            client.close()
        super().close()

    @property
    def info(self) -> str:
        """The lines about this scheduler in the banner of beat."""
        decides = self._scheduler_class
        path = f"{decides.__module__}.{decides.__qualname__}"
        other = decides(self.app, **self._options, lazy=True).info
        return f"    . lock -> {self._name}\n    . decides -> {path}\n{other}".rstrip()

    # -- the lock

    @property
    def _scheduler_class(self) -> type[Any]:
        found: type[Any] = symbol_by_name(self._settings.get("scheduler", PersistentScheduler))
        return found

    @property
    def _name(self) -> str:
        return str(self._settings.get("lock", f"celery-beat:{self.app.main or 'default'}"))

    def _take_over(self) -> bool:
        """Wait for the lock, one tick at most, and open the schedule if it is held. Returns whether it is."""
        self._pause = 0.0
        try:
            if self._client is None:  # late: beat may fork after it has made its scheduler
                self._client = connect(**settings_of(self.app), task="celery beat")
            ttl = {"ttl": self._settings["ttl"]} if "ttl" in self._settings else {}
            lock = self._client.lock(self._name, **ttl)
            self._lease = lock.acquire(timeout=min(_PATIENCE, self.max_interval), reason="celery beat")
            self._open(self._client, self._lease)
        except AcquireTimeout as busy:
            self._tell(logging.INFO, getattr(busy.holder, "claim_id", None), "beat stands by: %s", busy)
        except (BackendUnavailable, OutcomeUnknown) as trouble:
            self._tell(
                logging.ERROR, type(trouble), "beat sends nothing, because the store is away: %s", trouble
            )
            self._step_down("normal")
            self._pause = _STORE_AGAIN
        except (Drained, LeaseLost, NotHeld, Overtaken) as reason:
            self._tell(logging.WARNING, type(reason), "beat sends nothing: %s", reason)
            self._step_down("normal")
            self._pause = _STORE_AGAIN if isinstance(reason, Drained) else 0.0
        else:
            self._told = None
            logger.info("beat holds %r, with fence %d: it sends what is due", self._name, self._lease.fence)
            return True
        return False

    def _open(self, client: Client, lease: Lease) -> None:
        runs = Runs(client, lease)
        term = _while_held(self._scheduler_class, runs)(
            self.app, **self._options, Producer=_checking(self.app.amqp.Producer, lease)
        )
        self._term = term
        runs.resume(list(term.schedule.values()))

    def _step_down(self, reason: Reason) -> None:
        """Close the schedule, then release the lock, so that the next holder may open the same file."""
        term, self._term = self._term, None
        lease, self._lease = self._lease, None
        try:
            if term is not None:
                term.close()
        except Exception:
            logger.exception("the schedule of beat could not be closed")
        finally:
            if lease is not None:
                lease.release(reason)

    def _tell(self, level: int, key: object, text: str, *words: object) -> None:
        """Log why nothing is sent, once for each reason."""
        if key != self._told:
            self._told = key
            logger.log(level, text, *words)


def _settings(app: Any) -> dict[str, Any]:
    """The settings of an app for this scheduler.

    Raises:
        ConfigError: There is no such setting.
    """
    given = {key.removeprefix(BEAT): value for key, value in given_to(app).items() if key.startswith(BEAT)}
    for name in given.keys() - set(_SETTINGS):
        raise ConfigError(
            f"the configuration of the Celery application has {PREFIX}{BEAT}{name}, "
            "which is no setting of beat's lock",
            hint=f"the settings: {', '.join(PREFIX + BEAT + name for name in _SETTINGS)}",
        )
    return {name: value for name, value in given.items() if value is not None}


def _while_held(base: type[Any], runs: Runs) -> type[Any]:
    """A subclass of a scheduler class that puts each run on record before it sends it."""
    advanced: dict[str, datetime] = {}

    class Term(base):
        """The scheduler that decides, for as long as the lock is held."""

        ended = False

        def reserve(self, entry: Any) -> Any:
            """Advance an entry. Some schedulers keep the new one to themselves, so its time is noted here."""
            after = super().reserve(entry)
            advanced[entry.name] = after.last_run_at
            return after

        def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **options: Any) -> Any:  # noqa: FBT001, FBT002 (the signature of Celery)
            """Send one run, if it is this beat's to send."""
            at = None if advance else advanced.get(entry.name)
            try:
                runs.begin(entry, at or entry.default_now())
            except (LeaseLost, NotHeld, Overtaken) as late:
                self.ended = True
                logger.warning(
                    "beat does not send %r, which the holder of the lock does: %s", entry.name, late
                )
                return None
            return super().apply_async(entry, producer=producer, advance=advance, **options)

    return Term


def _checking(base: type[Any], lease: Lease) -> type[Any]:
    """A subclass of a producer class that checks the lock at each attempt to hand over a message."""

    class Producer(base):
        """A producer of messages."""

        def _publish(self, *args: Any, **options: Any) -> Any:
            lease.ensure_held()
            return super()._publish(*args, **options)

    return Producer
