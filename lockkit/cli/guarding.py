"""``lockkit run``: wait for the lock, hold it, run the command, release the lock, and exit with a code.

The lock is taken before the command is started and released after the command has ended. Processes that the
command leaves in the background are not waited for, because a daemon would never end. On a store with
process-bound claims they inherit a descriptor that keeps the lock if the wrapper is killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from lockkit.cli import eviction, exits, fitting, nesting, taking
from lockkit.cli.child import find, spawn
from lockkit.cli.parameters import finite
from lockkit.cli.report import RunReport
from lockkit.cli.signals import Signals, Terminated
from lockkit.cli.suggesting import WORDS, look
from lockkit.cli.supervise import MAX_HOLD, Ended, Supervisor
from lockkit.cli.terminal import Terminal
from lockkit.cli.waiting import Announcer
from lockkit.cli.watchdog import Policy, Watchdog
from lockkit.errors import BackendError, ConfigError, LockkitError
from lockkit.facts import LOSSES
from lockkit.hooks import of_gpus
from lockkit.lib.clock import SYSTEM

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.cli.run_request import Request
    from lockkit.cli.taking import Taken
    from lockkit.cli.textfile import Textfile
    from lockkit.config.config import Config
    from lockkit.facts import ReleaseRequest
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["Run", "guard"]

T = TypeVar("T")
CtrlC = Literal["alone", "group"] | None


def guard(session: Session, request: Request) -> int:
    """Run the command under the lock. Reports errors itself, because ``-E`` and --report affect them.

    Returns:
        The exit code.
    """
    tell = _teller(session, request.name)
    report = RunReport(request.report, request.name, request.command[0], tell)
    textfile = _textfile(request, tell)
    by_ctrl_c: CtrlC = None
    try:
        report.open()
        path = _program(request)
        with Signals(request.name, request.cards_in_words) as signals:
            run = Run(session, request, report, signals, path, tell, textfile)
            code = run.guarded()
            by_ctrl_c = run.by_ctrl_c
    except (LockkitError, KeyboardInterrupt, Terminated) as error:
        code = exits.code_of(error)
        if code in (exits.BUSY, exits.TIMED_OUT) and request.conflict_code is not None:
            code = request.conflict_code
        report.failed(error, code)
        exits.report(error, as_json=session.json, code=code)
        by_ctrl_c = "alone" if isinstance(error, KeyboardInterrupt) else None
    report.close(code)
    if textfile is not None:
        textfile.close(code)
    if by_ctrl_c is not None:
        _end_as_by_ctrl_c(by_ctrl_c)
    return code


def _program(request: Request) -> str:
    """The file of the command. If there is none, the error suggests the line that was probably meant.

    Either NAME was forgotten, or ``--`` is misplaced: after the command, or before options of lockkit.

    Raises:
        CommandFailed: As for :func:`lockkit.cli.child.find`.
    """
    try:
        return find(request.command[0], os.environ)
    except exits.CommandFailed as error:
        from lockkit.cli import guessing

        words: list[str] | None = None
        ctx = click.get_current_context(silent=True)
        if request.command[0].startswith("-") and ctx is not None:
            words = guessing.of_run(ctx, ctx.meta[WORDS])
        else:
            with suppress(exits.CommandFailed, ValueError):
                *others, program = request.names
                if others and ctx is not None:
                    words = guessing.of_run(ctx, ctx.meta[WORDS])
                else:
                    find(program, os.environ)
                    words = ["run", "NAME", "--", program, *request.command]
        if words is not None:
            error.hint = guessing.sentence(words)
        raise


def _textfile(request: Request, tell: Callable[[str], None]) -> Textfile | None:
    """The file for ``--metrics-textfile``, which is written from now on; None without the option."""
    if request.metrics_textfile is None:
        return None
    from lockkit.cli.textfile import Textfile  # late: most runs need no metrics

    return Textfile(request.metrics_textfile, [request.pool] if request.pool else request.names, tell)


def _teller(session: Session, name: str) -> Callable[[str], None]:
    """A function that writes a message of lockkit to stderr while the command runs."""

    def tell(sentence: str) -> None:
        from lockkit.cli import output

        output.notice(sentence, name=name, as_json=session.json)

    return tell


def _end_as_by_ctrl_c(who: Literal["alone", "group"]) -> None:
    """End this process by SIGINT, so that a script or loop around it ends as well, as without lockkit.

    A shell stops its loop only if a job *dies* of SIGINT; ``$?`` is 130 all the same. While the command's
    group had the terminal, a script in our process group has not seen the signal (``group``). A parent that
    is not a shell of this terminal gets the plain exit code.
    """
    terminal = Terminal()
    alone = terminal.foreground is not None
    terminal.close()
    if not alone or os.getsid(os.getppid()) != os.getsid(0):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if who == "group":
        os.killpg(os.getpgrp(), signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGINT)


class Run:
    """The course of one ``run``, from connecting to the released lock."""

    def __init__(
        self,
        session: Session,
        request: Request,
        report: RunReport,
        signals: Signals,
        path: str,
        tell: Callable[[str], None],
        textfile: Textfile | None = None,
    ) -> None:
        self.session = session
        self.request = request
        self._report = report
        self.signals = signals
        self._path = path
        self.tell = tell
        self._textfile = textfile
        self._terminal = Terminal()
        self._asked: deque[tuple[str, ReleaseRequest]] = deque()
        self._named: Callable[[str], str] | None = None
        self.by_ctrl_c: CtrlC = None

    def guarded(self) -> int:
        with ExitStack() as stack:
            stack.callback(self._terminal.close)
            client = stack.enter_context(self.session.client(where="wrapper"))
            self._report.store(client)
            if self._textfile is not None:
                self._textfile.configured(client.config)
            self.signals.check()
            fitting.reaches_others(client)
            if self.request.gpu is not None:
                code: int = of_gpus("guarded")(self, client, self.request.gpu)
                return code
            self._tell_reach(client)
            announcer = Announcer(
                client,
                quiet=self.request.quiet,
                as_json=self.session.json,
                signals=self.signals,
                limit=finite(self.request.timeout),
            )
            session, request, woken = self.session, self.request, self.signals.wake
            taken = self.waiting(
                announcer, lambda: taking.acquire(client, session, request, woken, announcer)
            )
            if not isinstance(taken, taking.Reused):
                return self.held(client, taken)
            if taken.taken is not None:
                return self.held(client, taken.taken, taken.holds)
            return self.reusing(client, taken.holds, nesting.passed_on(taken.holds, os.environ))

    def call(self, pool: str) -> None:
        """Tell the report, the metrics and the messages about signals which pool the request goes to."""
        self._report.named(pool)
        if self._textfile is not None:
            self._textfile.named(pool)
        self.signals.name = pool

    def waiting(self, announcer: Announcer, acquire: Callable[[], T]) -> T:
        """Acquire; the wait is announced while it lasts, and reported at its end."""
        began = SYSTEM.now()
        try:
            return acquire()
        finally:
            announcer.done()
            self._report.waited(SYSTEM.now() - began, announcer.waits)

    def _tell_reach(self, client: Client) -> None:
        """Say on a terminal whose processes the default store keeps apart, unless ``scope`` is set."""
        config = client.config
        quiet = self.request.quiet or self.session.json or not sys.stderr.isatty()
        if quiet or client.url_source != "default" or config.scope or nesting.VARIABLE in os.environ:
            return
        user = client.owner.user or "one user"
        self.tell(
            f"this lock is only between {user}'s processes on this host; for all "
            "users: lockkit docs all-users"
        )

    def held(
        self,
        client: Client,
        taken: Taken,
        reused: Sequence[nesting.Outer] = (),
        shows: Callable[[Taken], Mapping[str, str | None]] = lambda _: {},
        named: Callable[[str], str] | None = None,
        sees: Callable[[int | None], None] | None = None,
    ) -> int:
        """Run the command under leases of its own.

        Args:
            client: The client.
            taken: The leases.
            reused: The holds around this run that the command works under as well.
            shows: The variables for the command; called once the leases are there.
            named: The name by which people call what a lock is for; None where that is the lock.
            sees: Called again and again with the command's process group, to look at the processes in it.
        """
        self._named = named
        reason = "error"
        ended: Ended | None = None
        leases = taking.each(taken)
        try:
            self.signals.record()
            self._report.acquired(taken, leases)
            if self._textfile is not None:
                self._textfile.acquired([lease.name for lease in leases] if self.request.any else ())
            for lease in leases:
                lease.on_release_requested(partial(self._hear, lease.name))
            exported = {**nesting.exports(client, leases, os.environ, reused), **shows(taken)}
            ended = self._under(client, exported, taken, sees)
            if ended.lost is not None:
                reason = taken.lost_because or "lost"
            elif ended.exit_code == 0:
                reason = "normal"
        finally:
            taken.release(reason)
            reports = [lease.report for lease in leases]
            self._report.released(leases)
            if self._textfile is not None:
                self._textfile.released()
        lost = ended.lost
        gone = _first_lost(leases)
        absent = next((lease for lease in leases if lease.report and lease.report.outcome == "LOST"), None)
        if lost is None and absent is not None:
            gone, lost = absent, f"at its release {LOSSES['absent']}"
        if lost is not None:
            name = (gone or leases[0]).name
            self._report.lost(lost)
            text = (
                f"{f'the lock {name!r}' if self._named is None else self._named(name)} was "
                f"lost while the command ran: {lost}"
            )
            if (
                ended.lost
                and lost.startswith(MAX_HOLD)
                and (self.request.on_lost or client.config.on_lost) != "warn"
            ):
                text = (
                    "the command under "
                    f"{repr(name) if self._named is None else self._named(name)} was ended: {lost}"
                )
            raise exits.CommandFailed(
                text,
                code=exits.LOST,
                kind="lost",
                name=name,
                hint=look(self.session, name),
            )
        for report in reports:
            if report is not None and report.outcome == "ABANDONED":
                self.tell(
                    f"the release of {report.name!r} was not confirmed; it lapses by "
                    "itself (lockkit failures list)"
                )
        return ended.exit_code

    def reusing(
        self, client: Client, holds: Sequence[nesting.Outer], exported: Mapping[str, str | None]
    ) -> int:
        """Run the command under outer holds, which may end before the command does."""
        ended = self._under(client, exported)
        with suppress(BackendError):  # then nobody knows, and what is around loses its hold by itself
            for hold in holds:
                if all(claim.claim_id != hold.claim_id for claim in client.inspect(hold.name).holders):
                    raise exits.CommandFailed(
                        f"the lockkit run or task around this one held {hold.name!r} no "
                        "longer when the command ended",
                        code=exits.LOST,
                        kind="lost",
                        name=hold.name,
                        hint="let it wait for this run, or start this run outside of it",
                    )
        return ended.exit_code

    def _under(
        self,
        client: Client,
        exported: Mapping[str, str | None],
        taken: Taken | None = None,
        sees: Callable[[int | None], None] | None = None,
    ) -> Ended:
        """Run the command, under leases of its own or under the outer ones."""
        self.signals.record()
        if self._textfile is not None and taken is None:
            self._textfile.acquired()
        environ = {key: value for key, value in {**os.environ, **exported}.items() if value is not None}
        policy = Policy() if taken is None else _policy(self.request, client.config, taken)
        leases = () if taken is None else taking.each(taken)
        evictions = client.driver().backend.extras.evictions if leases else None
        claims = [lease.claim_id for lease in leases]
        told = evictions and evictions(claims)
        with Watchdog(leases, policy, group=self._terminal.own_group, evictions=told) as watchdog:
            child = spawn(
                self._path,
                self.request.command,
                environ,
                keep=client.pulse() if taken is not None else (),
                terminal=self._terminal,
                handled=self.signals.handled(),
                begins=watchdog.begins,
                claims=claims,
            )
            ended = Supervisor(
                child,
                self.signals,
                self._terminal,
                taken,
                policy,
                tell=self.tell,
                now=SYSTEM.now,
                lost_why=lambda: self._why(client, taken),
                lost_what=lambda: self._what(taken),
                asked=self._take_requests,
                sees=None if sees is None else partial(sees, child.group),
                watchdog=watchdog,
                clock_time=_clock_time,
            ).run()
        self._report.ended(ended)
        self.by_ctrl_c = "group" if ended.by_ctrl_c else None
        return ended

    def _hear(self, name: str, request: ReleaseRequest) -> None:
        """Take a request to release a lock, in a background thread; the supervisor wakes to pass it on."""
        self._asked.append((name, request))
        self.signals.wake()

    def _take_requests(self) -> list[str]:
        """The requests to release that came since the last call, in words."""
        told = []
        while self._asked:
            name, request = self._asked.popleft()
            self._report.asked(name, request)
            told.append(f"asked to release {name!r} by {request}")
        return told

    def _what(self, taken: Taken | None) -> str:
        """Name what is lost, in words: the card where cards are held."""
        if self._named is None or taken is None:
            return "the lock"
        leases = taking.each(taken)
        return self._named((_first_lost(leases) or leases[0]).name)

    def _why(self, client: Client, taken: Taken | None) -> str:
        """The reason for the loss of the lease, in words."""
        lease = None if taken is None else _first_lost(taking.each(taken))
        because = "" if lease is None else lease.lost_because
        evicted = None if lease is None else eviction.said(client, lease)
        if evicted is None:
            return LOSSES.get(because, because) or LOSSES["lapsed"]
        self._report.evicted(evicted)
        return f"evicted by {evicted['by']}: {evicted['reason']}"


def _clock_time(at: float) -> str:
    """A time of CLOCK_BOOTTIME as a time of day, to be shown to the user."""
    from lockkit.cli import output

    wall = SYSTEM.wall()
    return output.clock_time(wall - (SYSTEM.now() - at), wall)


def _first_lost(leases: Sequence[Lease]) -> Lease | None:
    """The first lease that is lost; None if none is."""
    return next((lease for lease in leases if lease.lost_because), None)


def _policy(request: Request, config: Config, taken: Taken) -> Policy:
    leases = taking.each(taken)
    terms = leases[0].terms  # ttl, max_hold and process_bound are those of all of them
    shortest = min(terms.ttl, terms.max_hold or terms.ttl)
    kill_after = request.kill_after
    if kill_after is None:
        # Renewals happen at a third of the ttl, so an earlier TERM would hit a healthy holder.
        kill_after = min(config.kill_after, shortest / 3)
    elif kill_after > shortest / 2:
        raise ConfigError(
            f"--kill-after ({kill_after:g} s) must be at most half of ttl and max-hold ({shortest:g} s)",
            hint="otherwise the command would get TERM before a renewal is overdue",
        )
    ends_at = None if terms.max_hold is None else min(lease.ends_at for lease in leases)
    return Policy(
        on_lost=request.on_lost or config.on_lost,
        kill_after=kill_after,
        ends_at=ends_at,
        max_hold=terms.max_hold,
        silence_ends=not terms.process_bound,
        on_ask=request.on_ask,
    )
