"""``lockkit demo``: see it work, and see it checked."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make

__all__ = ["command"]

_NEXT = ("lockkit run backup -- sleep 60", "lockkit run backup -- true      # in a second terminal")


@make(
    "demo",
    examples="""
lockkit demo
lockkit demo --json | jq .checks
""",
)
@option(
    "--break",
    "break_",
    type=click.Choice(["overlap", "fence", "leftover"]),
    hidden=True,
    help="Spoil it, to see the check fail.",
)
def command(session: Session, *, break_: str | None) -> int:
    """Watch five real processes compete for one lock, on a private store that is removed afterwards.

    One is killed with -9 while it holds, one is stopped past its ttl. Then their logs are checked: no two held at the same
    time, fences rise, nothing is left behind. Takes about 8 seconds; exits 1 if a check fails.
    """
    from lockkit.cli.demo.stage import play

    folder = Path(tempfile.mkdtemp(prefix="lockkit-demo-"))
    quiet = session.json
    try:
        if not quiet:
            print("Five processes want one lock, each of them twice.\n", flush=True)
        done = play(folder, (lambda _: None) if quiet else (lambda line: print(line, flush=True)), break_)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if quiet:
        output.write_json(
            {
                "schema": "lockkit.demo/1",
                "ok": done.ok,
                "checks": [{"check": one.name, "ok": one.ok, "message": one.message} for one in done.checks],
                "holds": [
                    {
                        "worker": hold.worker,
                        "start_seconds": hold.start,
                        "sure_seconds": hold.sure,
                        "fence": hold.fence,
                        "end": hold.end,
                    }
                    for hold in sorted(done.holds, key=lambda hold: hold.start)
                ],
            },
            indent=True,
        )
    else:
        from lockkit.cli.demo.timeline import Style, draw

        style = Style.of(unicode=_unicode(), colour=output.colour())
        width = min(shutil.get_terminal_size((80, 24)).columns, 120)
        print("\n" + "\n".join(draw(done.logs, done.holds, done.stopped, width, style)) + "\n")
        for check in done.checks:
            word = "ok    " if check.ok else "FAILED"
            print(
                f"{click.style(word, fg='green' if check.ok else 'red') if output.colour() else word} {check.message}"
            )
    if not done.ok:
        wrong = next(check for check in done.checks if not check.ok)
        raise exits.CommandFailed(f"the demo failed: {wrong.message}", code=exits.FAILED, kind="demo")
    if not quiet:
        print("\nTry next:\n  " + "\n  ".join(_NEXT))
    return exits.OK


def _unicode() -> bool:
    try:
        "█·░✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
