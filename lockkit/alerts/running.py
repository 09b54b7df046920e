"""The runner of the alert engine: a thread that takes happenings, looks at the store, and notifies.

Several processes share the work. Of those of one user on one host, one runs the engine, by a lock on a file,
which works during an outage of the store; the others leave happenings for it, and it leaves notifications for
their channels. Of all engines with channels on one store, a lockkit lock elects one that looks at the locks.
An engine without channels looks for its own page and log alone: if it were elected, nobody would be notified.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.alerts import inbox as inboxes
from lockkit.alerts.conditions import jobs
from lockkit.alerts.desk import Desk, folder_of
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import Happening, Look, counted
from lockkit.alerts.in_force import of_config
from lockkit.alerts.inbox import Inbox
from lockkit.alerts.keeping import Keeper
from lockkit.alerts.looking import look_at
from lockkit.alerts.passing_on import PassingOn
from lockkit.alerts.turns import TERM
from lockkit.config.places import make_folders
from lockkit.config.store_names import is_local, store_of
from lockkit.errors import BackendUnavailable, ConfigError, LockkitError, OutcomeUnknown
from lockkit.facts import NOTHING
from lockkit.lib.clock import SYSTEM
from lockkit.lib.printable import printable
from lockkit.store.ttls import UsualTtl
from lockkit.values.names import ALERTER, STANDING, digest

if TYPE_CHECKING:
    from lockkit.alerts.notification import Notification
    from lockkit.alerts.state import State
    from lockkit.config.config import Config
    from lockkit.lib.clock import Clock
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["LOCK", "Runner"]

_log = logging.getLogger("lockkit.alerts")
LOCK = ALERTER
_STEP = 1.0
"""Seconds between two steps."""
_LOCK_FILE = "engine.lock"


class Runner:
    """The runner. Make it after a fork, not before.

    Args:
        client: The client of the store and namespace; to be connected with the inbox as a plugin.
        inbox: Where its events and alerts arrive.
        sinks: Functions called with each notification, in order, on the runner's thread: must return at once.
        clock: The clock; its wall time is that of notifications.
        channels: The functions that notify people, called after the sinks, by keys as in ``Channels.each``. A
            notification reaches each channel that a living process of this user, host and store has.

    Attributes:
        desk: The alerts, for those who look at them and decide about them.
        running: Whether this process runs the engine; otherwise it hands over its happenings.
        dropped: The number of happenings that could not be handed over.
    """

    def __init__(
        self,
        client: Client,
        inbox: Inbox,
        sinks: Sequence[Callable[[Notification], object]],
        clock: Clock = SYSTEM,
        *,
        channels: Mapping[str, Callable[[Notification], object]] = NOTHING,  # type: ignore[assignment]  # nothing is in it
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._sinks = (*sinks, *channels.values())
        self._channels = channels
        self._clock = clock
        self._config: Config = client.config
        self.desk = Desk(folder_of(client.config), clock)
        self._keeper = Keeper(self.desk)
        self._passing_on = PassingOn(self.desk.folder, channels)
        self.running = False
        self.dropped = 0
        self._engine: Engine | None = None
        self._lease: Lease | None = None
        self._lock: int | None = None
        self._look_at = 0.0
        self._unread = ""
        self._stats: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run on a thread of its own until :meth:`close`."""
        self._thread = threading.Thread(target=self.run, name="lockkit-alerts", daemon=True)
        self._thread.start()

    def close(self, within: float = 5.0) -> None:
        """End the thread in ``within`` seconds; what has come is taken in, or left for the next engine."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(within)
            if within or not self._thread.is_alive():
                self._leave_the_rest()

    def run(self) -> None:
        """Step again and again until :meth:`close`. A step that fails is logged, and the next one follows."""
        try:
            while not self._stop.is_set():
                try:
                    self.step()
                except LockkitError as error:
                    _log.warning("alerts: %s", printable(str(error)))
                except Exception as error:
                    _log.exception("alerts: a step failed: %s", printable(repr(error)))
                self._stop.wait(_STEP)
        finally:
            try:
                self._last()
            finally:
                self._resign()
                self._passing_on.close()

    def step(self, *, looking: bool = True) -> list[Notification]:
        """One step: look if it is time to, take in, decide, hand over, save. Returns what was handed over.

        The state is saved after the notifications are handed over, so each is handed over at least once.

        Args:
            looking: Whether it may look at the store, which can take as long as the store does.
        """
        self._passing_on.take(self._hand)
        engine = self._here() or self._leave()
        if engine is None:
            return []
        happened: list[Happening] = []
        look = None
        if looking and self._clock.now() >= self._look_at:
            self._look_at = self._clock.now() + self._config.alerts_look_every
            self._reload(engine)
            look = self._look(jobs(engine.rules))
            happened += self._counters()
        # Only now, when nothing can fail any more: an alert that was taken and not sent would be lost.
        happened += self._inbox.take()
        if self._lock is not None:
            happened += self._keeper.handed_over()
        told = engine.step(self._clock.wall(), happened, look, self._keeper.decisions())
        for notification in told:
            for sink in self._sinks:
                self._hand(sink, notification)
            self._passing_on.leave(notification)
        if self._lock is not None and (told or happened or look is not None):
            self._keeper.save(engine.state)
        return told

    def _hand(self, sink: Callable[[Notification], object], notification: Notification) -> None:
        try:
            sink(notification)
        except Exception as error:
            _log.error("alerts: a sink failed: %s", printable(repr(error)))

    # -- who runs the engine

    def _here(self) -> Engine | None:
        """The engine if this process runs it, or now can; else None. If the disk fails, it runs in memory."""
        engine = self._engine
        if engine is not None and (self._lock is not None or _untold(engine.state)):
            return engine
        try:
            handle = self._locked()
        except OSError as error:
            self._keeper.say("engine", f"the alert engine runs in memory alone: {error}")
            return self._in_memory()
        if handle is None:
            self._resign()
            return None
        try:
            if engine is None or not engine.state.alerts:
                self._engine = self._made(self._keeper.state())
        except BaseException:
            os.close(handle)
            raise
        self._keeper.well("engine")
        self._lock, self.running = handle, True
        return self._engine

    def _locked(self) -> int | None:
        """The lock of the engine; None if another process has it."""
        make_folders(self.desk.folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self.desk.folder / _LOCK_FILE, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return handle

    def _leave(self) -> Engine | None:
        """Leave happenings for the engine's process. If the disk fails, run one in memory and return it."""
        happened = self._inbox.take()
        try:
            self.dropped += inboxes.hand_over(self.desk.folder, happened)
        except BlockingIOError:
            self._inbox.put_back(happened)
        except OSError as error:
            self._inbox.put_back(happened)
            self._keeper.say("engine", f"the alert engine runs in memory alone: {error}")
            return self._in_memory()
        return None

    def _in_memory(self) -> Engine:
        engine = self._engine = self._engine or self._made(None)
        self.running = True
        return engine

    def _last(self) -> None:
        """Process the last happenings, without the store. The next process sends what is not due yet."""
        try:
            self.step(looking=False)
        except Exception as error:
            _log.exception("alerts: the last step failed: %s", printable(repr(error)))
        if self._lock is None and self._engine is not None and _untold(self._engine.state):
            _log.error("alerts: some that were kept in memory alone end untold with this process")
        self._leave_the_rest()

    def _leave_the_rest(self) -> None:
        happened = self._inbox.take()
        try:
            self.dropped += inboxes.hand_over(self.desk.folder, happened)
        except OSError as error:
            self.dropped += len(happened)
            _log.error("alerts: %d are lost: %s", len(happened), printable(str(error)))

    def _made(self, state: State | None) -> Engine:
        return Engine(
            of_config(self._config),
            _timing(self._config),
            state,
            now=self._clock.wall(),
            labels={"namespace": self._client.namespace},
            store=_name_of(self._client),
            origin=secrets.token_hex(4),
        )

    def _resign(self) -> None:
        handle, self._lock, self.running, self._engine = self._lock, None, False, None
        if handle is not None:
            os.close(handle)
        self._unelect()

    def _unelect(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    # -- looking

    def _reload(self, engine: Engine) -> None:
        """Read changed rules, ages and times again. A wrong file is logged, and the old ones stay."""
        if not self._config.stale():
            return
        try:
            config = self._config.reload()
            engine.rules, engine.timing = of_config(config), _timing(config)
            self._config = config
        except ConfigError as error:
            _log.warning("alerts go on with their old rules: %s", printable(str(error)))

    def _counters(self) -> list[Happening]:
        before, self._stats = self._stats, dict(self._client.stats())
        return counted(before, self._stats)

    def _look(self, regular: Collection[str] = ()) -> Look:
        try:
            if not self._elected():
                return Look(elected=False)
        except (BackendUnavailable, OutcomeUnknown) as error:
            return Look(unreachable=error.message)
        look = look_at(self._client, self._config, besides=STANDING, jobs=regular, start=self._unread)
        self._unread = look.unread[0] if look.unread else ""
        return look

    def _elected(self) -> bool:
        """Whether this engine is the one that looks at the locks."""
        if not (self._channels or self._passing_on.others()):
            self._unelect()  # the last channel may have gone
            return True
        if self._lease is not None and self._lease.valid():
            return True
        self._lease = None
        try:
            self._lease = self._client.lock(LOCK, ttl=UsualTtl(TERM)).try_acquire(reason="alerts")
        except (BackendUnavailable, OutcomeUnknown):
            raise
        except LockkitError as error:  # a drained namespace, or a login that may only look
            return self._looks_unelected(error)
        self._keeper.well("election")
        return self._lease is not None

    def _looks_unelected(self, error: LockkitError) -> bool:
        """Whether to look unelected: if nobody has the lock. Prefer a duplicate to a lost alert."""
        try:
            taken = bool(self._client.inspect(LOCK).holders)
        except (BackendUnavailable, OutcomeUnknown):
            raise
        except LockkitError:
            taken = False
        if not taken:
            self._keeper.say(
                "election",
                f"alerts: looks without the lock {LOCK}, "
                f"so other engines on this store may tell the same: {error.message}",
                level=logging.WARNING,
            )
        return not taken


def _name_of(client: Client) -> str:
    """The name of the store and namespace among those that hosts share; empty for a store of one host."""
    if client.capabilities.scope != "fleet":
        return ""
    store = store_of(client.config)
    host = client.owner.host if is_local(store) else ""
    return digest(f"{store}\n{client.namespace}\n{host}")[:8]


def _untold(state: State) -> bool:
    """Whether something fires unsent and unhidden."""
    told = {key for group in state.groups.values() for key in group.told}
    return any(
        one.fired is not None and one.resolved is None and not one.hidden and key not in told
        for key, one in state.alerts.items()
    )


def _timing(config: Config) -> Timing:
    return Timing(
        config.alerts_group_wait,
        config.alerts_group_interval,
        config.alerts_repeat_interval,
        config.alerts_most_per_hour,
    )
