"""``lockkit doctor``: check configuration, store and plugins."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from lockkit.cli import drains, exits, logs, output, rows
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.suggesting import as_called
from lockkit.config.suggesting import SameStore
from lockkit.errors import LockkitError
from lockkit.facts import SCOPES, Finding
from lockkit.hooks import of_gpus
from lockkit.protocol.denials import drain_ends
from lockkit.values import durations
from lockkit.views.looking import seen

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.plugins import PluginManager
    from lockkit.sync.client import Client
    from lockkit.views import parts

__all__ = ["command"]

_LONG = 60.0
"""Seconds for which an alert may wait for its channel before that is reported."""
_RANK = {"ok": 0, "warning": 1, "error": 2}
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@make(
    "doctor",
    examples="""
lockkit doctor
lockkit doctor --fail-on warning --json
lockkit doctor --deadlocks
lockkit doctor --celery proj.app
""",
)
@option(
    "--fail-on",
    type=click.Choice(["warning", "error"]),
    default="error",
    show_default=True,
    help="The lowest severity for which the exit code is not 0.",
)
@option(
    "--deadlocks",
    is_flag=True,
    help="Look for threads and tasks of this namespace that wait for each other, too. Reads every queue, "
    "and twice if there is a deadlock.",
)
@option(
    "--celery",
    metavar="APP",
    help="Import this Celery app, as `celery -A APP` does, compare its settings with the locks of its "
    "tasks, and check the store of the app.",
)
def command(session: Session, *, fail_on: str, deadlocks: bool, celery: str | None) -> int:
    """Check configuration, store, plugins and GPUs, and print one sentence per finding.

    A store that does not answer is a finding, and the other checks go on. Each request to the store takes at
    most request_timeout (2 s), and the checks of plugins take at most 5 s.

    Exit code: 0 all is well, 1 warnings (with --fail-on warning), 2 errors.
    """
    progress = not session.json and output.colour(sys.stderr) and sys.stdout.isatty()
    examination = _Examination(session, rows.live if progress else None, deadlocks=deadlocks, celery=celery)
    findings: list[Finding] = []
    for one in examination.findings():
        findings.append(one)
        if progress:
            rows.erase()
        if not session.json:
            word = click.style(one.severity, fg=_COLOURS[one.severity]) if output.colour() else one.severity
            output.say(f": {one.message}" + (f" ({one.hint})" if one.hint else ""), head=word)
    if progress:
        rows.erase()
    if session.json:
        from lockkit.cli import documents

        output.print_json(documents.Doctor, examination, findings=findings, indent=True)
    worst = max((_RANK[one.severity] for one in findings), default=0)
    return worst if worst >= _RANK[fail_on] else exits.OK


class _Examination:
    """All checks, one after the other. An error of one of them is a finding, and the next goes on.

    ``doing`` is called with a text for a live line before each check that may take long.
    """

    def __init__(
        self,
        session: Session,
        doing: Callable[[str], None] | None,
        *,
        deadlocks: bool = False,
        celery: str | None = None,
    ) -> None:
        self._session = session
        self._deadlocks = deadlocks
        self._celery = celery
        self._doing = doing or (lambda _: None)
        self._found: list[Finding] = []
        self.store: parts.Store | None = None

    def findings(self) -> Iterator[Finding]:
        """The findings, as they are made."""
        from lockkit.plugins import PluginManager
        from lockkit.plugins.checking import check_files

        of_app: list[Finding] = []
        if self._celery is not None:
            self._doing(f"importing {self._celery} ...")
            of_app, self._session = _celery(self._celery, self._session)
        session = self._session
        self._doing("reading the configuration ...")
        yield from self._new(
            check_files(
                session.url, profile=session.profile, namespace=session.namespace, elsewhere="warning"
            )
        )
        yield from self._new(of_app)
        try:
            config = session.config()
        except LockkitError as error:
            yield from self._new([_of(error)])
            told = (
                "the store, the plugins and the journal were not checked, because the "
                "configuration cannot be used"
            )
            yield Finding("config", "warning", told, "correct it, and run lockkit doctor again")
            return
        with logs.held_back(self._known), ExitStack() as stack:
            opened: Client | None = None
            try:
                client = opened = stack.enter_context(session.client())
            except LockkitError as error:
                yield from self._new([_of(error)])
                plugins = PluginManager(disabled=config.disable_plugins)
            else:
                yield from self._of_client(client)
                plugins = client.plugins
            self._doing("looking at the plugins ...")
            yield from self._new(_plugins(plugins))
            self._doing("looking at the GPUs ...")
            yield from self._try(lambda: _gpus(config, plugins, opened))
            yield from self._try(lambda: _failures(config))
            yield from self._try(lambda: _channels(config))

    def _of_client(self, client: Client) -> Iterator[Finding]:
        if self._session.json:
            from lockkit.views import making

            self.store = making.store(client)
        self._doing(f"asking the store, {client.url} ...")
        yield from self._try(lambda: _store(client, *as_called(self._session)))
        yield from self._new(_container(client))
        if self._deadlocks:
            self._doing("looking for deadlocks ...")
            yield from self._try(lambda: _deadlocks(client))
        client.warn()
        self._doing("waiting for the checks of plugins ...")
        yield from self._try(client.check_plugins)

    def _try(self, check: Callable[[], list[Finding]]) -> list[Finding]:
        try:
            found = check()
        except LockkitError as error:
            found = [_of(error)]
        return self._new(found)

    def _new(self, found: list[Finding]) -> list[Finding]:
        """The findings that are not known already. A problem that is met twice is reported once."""
        known = {one.message for one in self._found if one.severity != "ok"}
        new = [one for one in found if one.severity == "ok" or one.message not in known]
        self._found += new
        return new

    def _known(self, message: str) -> bool:
        """Whether a warning is also a finding. Hints are compared: a message may contain an age."""
        return any(one.hint and one.severity != "ok" and f"({one.hint})" in message for one in self._found)


def _of(error: LockkitError) -> Finding:
    return Finding("store", "error", error.message, error.hint or "")


def _store(client: Client, options: str, first: str) -> list[Finding]:
    """Findings about the store: its capabilities, its mark of a drain, and its own ``check()``."""
    can = client.capabilities
    where = f"{output.store_words(client)}, namespace {client.namespace}"
    found = [Finding("store", "ok", f"{where}; its locks keep apart {SCOPES[can.scope]}")]
    drained = seen(client)
    if drained is not None:
        found.append(
            Finding(
                "drained", "warning", drains.told(drained), drain_ends(drained, SameStore(options, first))
            )
        )
    known = client.check_store()
    if can.scope == "process" and all(one.severity == "ok" for one in known):
        found.append(
            Finding(
                "scope",
                "warning",
                "this store's locks do not reach beyond one process",
                "see: lockkit config show",
            )
        )
    return found + list(known)


def _celery(name: str, session: Session) -> tuple[list[Finding], Session]:
    """Findings about a Celery app, or its failed import; and the session, which now uses the app's store."""
    try:
        from lockkit.integrations.celery.reading_app import ORIGIN, examine
    except ModuleNotFoundError as missing:
        told = f"--celery needs the module {missing.name}, which is not installed"
        return [Finding("celery", "error", told, "pip install 'lockkit[celery]'")], session
    try:
        app = examine(name)
    except LockkitError as error:
        return [Finding("celery", "error", error.message, error.hint or "")], session
    return app.findings, session.of_app(app.settings, ORIGIN)


def _container(client: Client) -> list[Finding]:
    """How far the locks reach if this process runs in a container."""
    from lockkit.values import containers

    folder = output.store_folder(client)
    seen = containers.detect(folder, os.environ)
    return (
        []
        if seen is None
        else [containers.finding(seen, client.capabilities.scope, folder, str(os.getuid()))]
    )


def _deadlocks(client: Client) -> list[Finding]:
    """A finding for each deadlock of the namespace, or one that says that there is none."""
    found = client.deadlocks()
    if not found:
        return [Finding("deadlocks", "ok", f"no deadlock found in namespace {client.namespace}")]
    return [
        Finding(
            "deadlocks",
            "error",
            f"deadlock: {one}",
            "end one of these programs, or evict one of the holders; see: lockkit explain "
            f"{shlex.quote(one.holders[0].name)}",
        )
        for one in found
    ]


def _plugins(plugins: PluginManager) -> list[Finding]:
    return [
        Finding("plugins", "warning", f"plugin {info.name}: {info.error}", "see: lockkit plugins")
        for info in plugins.describe()
        if info.error
    ]


def _gpus(config: Config, plugins: PluginManager, client: Client | None) -> list[Finding]:
    return [of_gpus("finding")(config, plugins, client=client)]


def _channels(config: Config) -> list[Finding]:
    """The channels of alerts for which something waits, although that is sent within seconds."""
    from lockkit.alerts.opening import FOLDER
    from lockkit.alerts.spool import waiting
    from lockkit.lib.clock import SYSTEM

    found = []
    for name in config.alerts.get("channels", {}):
        since = waiting(config.state_place(create=False).path / FOLDER, name)
        waited = SYSTEM.wall() - since[0] if since else 0.0
        if waited > _LONG:
            wait = "1 alert waits" if len(since) == 1 else f"{len(since)} alerts wait"
            told = (
                f"{wait} for channel {name}, the first one for {durations.age(waited)}: its service takes "
                "nothing, or no lockkit serve runs"
            )
            found.append(Finding("alerts", "warning", told, f"lockkit alerts test {name}"))
    return found


def _failures(config: Config) -> list[Finding]:
    from lockkit.observe import journal

    place = config.state_place()
    found = [Finding("state", "ok", f"state folder: {place.path} (from {place.source})")]
    count = sum(not record.get("resolved") for record in journal.read(place.path))
    if count:
        noun = "release" if count == 1 else "releases"
        found.append(
            Finding(
                "failures",
                "warning",
                f"{count} failed {noun} not resolved yet",
                "see: lockkit failures list",
            )
        )
    return found
