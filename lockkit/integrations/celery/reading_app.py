"""The facts for :mod:`lockkit.integrations.celery.checks`, from an app imported as by ``celery -A``."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.app.utils import find_app

from lockkit.errors import ConfigError, LockkitError
from lockkit.facts import Finding
from lockkit.integrations.celery import fitting_app
from lockkit.integrations.celery.app_facts import LockedFacts, Setup
from lockkit.integrations.celery.checks import findings_of
from lockkit.integrations.celery.clients import PREFIX, client_of, settings_of, ttl_of
from lockkit.integrations.celery.shared_broker import shared_broker
from lockkit.integrations.celery.taking import check
from lockkit.integrations.celery.task import LockedTask
from lockkit.integrations.celery.time_limits import time_limits
from lockkit.integrations.celery.visibility import visibility_timeout
from lockkit.integrations.celery.worker_pool import kind_of
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.durations import exact

if TYPE_CHECKING:
    from lockkit.integrations.celery.options import LockOptions
    from lockkit.sync.client import Client

__all__ = ["ORIGIN", "ExaminedApp", "examine", "load", "locked_tasks", "setup_of"]

ORIGIN = f"app.conf.{PREFIX}"
"""The beginning of the names of an app's settings of lockkit, for people."""


class ExaminedApp(NamedTuple):
    """An app that was looked at.

    Attributes:
        findings: One that says what was looked at, and one for each mistake.
        settings: The settings of lockkit in the configuration of the app, as ``connect`` takes them.
    """

    findings: list[Finding]
    settings: Mapping[str, Any]


def examine(name: str) -> ExaminedApp:
    """Import an app and compare its settings with the locks of its tasks.

    Args:
        name: The app, as ``celery -A`` takes it, looked for in the current folder first.

    Raises:
        ConfigError: The app cannot be imported.
    """
    with _importing(name):
        app = load(name)
        setup, tasks, settings = setup_of(app), list(locked_tasks(app)), settings_of(app)
    found = list(findings_of(setup, tasks))
    after = setup.visibility_timeout
    told = "not known" if after is None else exact(after)
    origin = f" (from {ORIGIN}url)" if settings.get("url") else ""
    looked = Finding(
        "celery",
        "ok",
        f"{name}: {_counted(len(tasks))}; pool {setup.pool}, visibility timeout of the broker {told}; "
        f"locks in {setup.store}{origin}",
    )
    return ExaminedApp([looked, *found], settings)


def _counted(count: int) -> str:
    return (
        "no task takes a lock"
        if not count
        else "1 task takes a lock"
        if count == 1
        else f"{count} tasks take locks"
    )


def load(name: str) -> Celery:
    """Import an app and the modules of its tasks.

    Raises:
        ConfigError: The name is that of something else.
        Exception: There is no such app, or its code failed.
    """
    with fitting_app.unchecked():  # all mistakes are listed; a refusal would stop at the first
        app = find_app(name)
        if isinstance(app, Celery):
            app.loader.import_default_modules()
            app.finalize()
    if not isinstance(app, Celery):
        raise ConfigError(
            f"{name!r} is no Celery app, but of the type {type(app).__name__}",
            hint="name the app as for celery -A: --celery proj.app, or --celery proj.celery:app",
        )
    return app


def _place(error: BaseException) -> str:
    """The line of the user's code that failed, if the error comes from one."""
    here = f"{Path.cwd()}/"
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(here)]
    lines = [frame for frame in lines if "site-packages" not in frame.filename]
    return f" ({lines[-1].filename.removeprefix(here)}, line {lines[-1].lineno})" if lines else ""


@contextlib.contextmanager
def _importing(name: str) -> Iterator[None]:
    """Put the current folder first on the path; raise ConfigError where the app's code or settings fail."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints is no finding
            yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the Celery app {name!r} cannot be imported: {type(error).__name__}: {error}{_place(error)}",
            hint=f"run it in the folder in which this works: celery -A {name} report",
        ) from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def setup_of(app: Celery) -> Setup:
    """The facts of an app's configuration, and of its store by the URL. Asks no store.

    Raises:
        ConfigError, PluginError: As :func:`lockkit.connect`.
    """
    conf = app.conf
    results = str(conf.result_backend or "disabled")
    client = client_of(app)
    return Setup(
        visibility_timeout=visibility_timeout(conf),
        pool=kind_of(conf.worker_pool),
        concurrency=conf.worker_concurrency,
        prefetch=int(conf.worker_prefetch_multiplier),
        results=not results.startswith("disabled"),
        shared_broker=shared_broker(conf),
        store=client.url,
        reach=client.capabilities.scope,
    )


def locked_tasks(app: Celery) -> Iterator[LockedFacts]:
    """The facts of the tasks with locks, by name. Reads lockkit's configuration, and asks no store."""
    client = None
    for name, task in sorted(app.tasks.items()):
        if isinstance(task, LockedTask):
            client = client or client_of(app)
            yield _facts_of(name, task, client)


def _facts_of(name: str, task: LockedTask, client: Client) -> LockedFacts:
    options = task.lock_options
    hard, soft = time_limits(task, task.app.conf)
    return LockedFacts(
        task=name,
        ttl=ttl_of(client, options.ttl),
        on_busy=options.on_busy,
        max_wait=options.max_wait,
        max_hold=client.config.max_hold if options.max_hold is None else options.max_hold,
        on_duplicate=options.on_duplicate,
        on_unavailable=options.unavailable,
        own_countdown=_own_countdown(task),
        time_limit=hard,
        soft_time_limit=soft,
        expires=task.expires if isinstance(task.expires, int | float) else None,
        acks_late=bool(task.acks_late),
        acks_on_timeout=_acks_on_timeout(task),
        reject_on_worker_lost=bool(task.reject_on_worker_lost),
        ignore_result=bool(task.ignore_result),
        refused=_refused(client, options),
    )


def _refused(client: Client, options: LockOptions) -> str | None:
    """The error and the hint of a lock that can never be taken, or None."""
    try:
        check(client, options)
    except LockkitError as error:
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return None


def _own_countdown(task: LockedTask) -> float | None:
    """The longest pause that ``autoretry_for`` makes."""
    if not getattr(task, "autoretry_for", ()):
        return None
    if getattr(task, "retry_backoff", False):
        return float(getattr(task, "retry_backoff_max", 600))
    return float(task.default_retry_delay)


def _acks_on_timeout(task: LockedTask) -> bool:
    """Whether a task that hits its time limit is acknowledged. Celery 5.6 joins this with failures."""
    found = getattr(task, "acks_on_timeout", None)
    return bool(task.acks_on_failure_or_timeout if found is None else found)
