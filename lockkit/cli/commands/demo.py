"""``lockkit demo``: processes compete for one lock, and the result is checked."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.signals import Signals
from lockkit.errors import ConfigError

__all__ = ["command"]

_NEXT = ("run backup -- sleep 60", "run backup -- true      # in a second terminal")


@make(
    "demo",
    examples="""
lockkit demo
lockkit demo --on redis
lockkit demo --json | jq .checks
""",
)
@option(
    "--on",
    type=click.Choice(["sqlite", "redis"]),
    default="sqlite",
    show_default=True,
    help="The store: a file, or a private Redis server started for the demo.",
)
@option(
    "--break",
    "break_",
    type=click.Choice(["overlap", "fence", "leftover"]),
    hidden=True,
    help="Falsify the logs, to see a check fail.",
)
def command(session: Session, *, on: str, break_: str | None) -> int:
    """Watch five real processes compete for one lock, on a private store that is removed afterwards.

    One process is killed with kill -9 while it holds the lock, and one is stopped for longer than its ttl.
    Then their logs are checked: no two processes held the lock at the same time, fences rise, nothing is left
    behind. The demo takes about 8 seconds, and exits 1 if a check fails.
    """
    from lockkit.cli.demo.stage import play

    quiet = session.json
    with Signals(), _folder() as folder, _server() if on == "redis" else nullcontext() as url:
        if not quiet:
            where = "" if url is None else f", in {url}"
            print(f"Five processes want one lock, each of them twice{where}.\n", flush=True)
        tell = (lambda _: None) if quiet else (lambda line: print(line, flush=True))
        done = play(folder, tell, break_, url)
    if quiet:
        from lockkit.cli import documents

        holds = sorted(done.holds, key=lambda hold: hold.start)
        output.print_json(documents.Demo, done, holds=holds, indent=True)
    else:
        from lockkit.cli.demo.timeline import Style, draw

        style = Style.of(unicode=_unicode(), colour=output.colour())
        width = min(shutil.get_terminal_size((80, 24)).columns, 120)
        print("\n" + "\n".join(draw(done.logs, done.holds, done.stopped, width, style)) + "\n")
        for check in done.checks:
            word = "ok    " if check.ok else "FAILED"
            print(
                f"{click.style(word, fg='green' if check.ok else 'red') if output.colour() else word} "
                f"{check.message}"
            )
    if not done.ok:
        wrong = next(check for check in done.checks if not check.ok)
        raise exits.CommandFailed(f"the demo failed: {wrong.message}", code=exits.FAILED, kind="demo")
    if not quiet:
        called = _called()
        print("\nTry next:\n" + "\n".join(f"  {called} {words}" for words in _NEXT))
    return exits.OK


def _called() -> str:
    """The shell's words for this lockkit: its name if that finds it, else a path (``.venv/bin/lockkit``)."""
    script, found = Path(sys.argv[0]), shutil.which("lockkit")
    by_name = script.name == "lockkit"
    here = script.parent if by_name else Path(sys.executable).parent
    if found is not None and Path(found).parent.resolve() == here.resolve():
        return "lockkit"
    return shlex.quote(str(script)) if by_name else f"{shlex.quote(sys.executable)} -m lockkit"


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the demo's files, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lockkit-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server() -> Iterator[str]:
    """A private Redis server, for as long as the demo takes."""
    try:
        import_module("redis")
    except ImportError as error:
        raise ConfigError(
            f"the demo on Redis needs {error.name}", hint='pip install "lockkit[redis]"'
        ) from None
    from lockkit.cli.demo.server import private_redis
    from lockkit.testing.processes import ServerMissing

    with ExitStack() as stack:
        try:
            url = stack.enter_context(private_redis())
        except ServerMissing as error:
            raise ConfigError(str(error), hint="Debian: apt-get install redis-server") from None
        yield url


def _unicode() -> bool:
    try:
        "█·░✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
