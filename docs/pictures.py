"""Write the pictures of the pages; `--record` first records the demo and `lockkit top` anew.

A test fails if a drawn picture is older than the code that draws it. The pictures of the dashboard are
screenshots, which differ between browsers: `python docs/pictures.py --dashboard` takes them anew, with the
Chromium, Redis and playwright of the tests. Look at them afterwards.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from drawing.figures import FIGURES
from drawing.screen import screen
from drawing.terminal import Recording, record, render

PICTURES = Path(__file__).parent / "pictures"
CAST = PICTURES / "demo.cast"
TOP = PICTURES / "top.cast"


def recorded() -> Recording:
    """The demo, run now."""
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environ["PATH"] = (
        f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # so that the demo names lockkit alone
    )
    return record("lockkit demo", [sys.executable, "-m", "lockkit", "demo"], environ)


def recorded_top() -> Recording:
    """The first screen of `lockkit top`, with holders and waiters on a Redis of their own."""
    with TemporaryDirectory() as folder, ExitStack() as ended:
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "NO_COLOR"))
        }
        environ |= {"LOCKKIT_STATE_DIR": folder, "LOCKKIT_URL": f"unix://{folder}/redis.sock"}
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--save", "", "--unixsocket", f"{folder}/redis.sock"],
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        ended.callback(server.wait)
        ended.callback(server.terminate)
        while not Path(folder, "redis.sock").exists():
            time.sleep(0.1)
        lockkit = [sys.executable, "-m", "lockkit"]

        def start(name: str, reason: str, *words: str) -> None:
            line = [*lockkit, "run", name, "--ttl", "20s", "--reason", reason, *words, "--", "sleep", "120"]
            process = subprocess.Popen(line, env=environ, start_new_session=True, stderr=subprocess.DEVNULL)
            ended.callback(process.wait)
            ended.callback(os.killpg, process.pid, signal.SIGTERM)

        def claims(name: str) -> int:
            line = [*lockkit, "status", name, "--json"]
            told = json.loads(subprocess.run(line, env=environ, check=True, capture_output=True).stdout)
            return sum(len(lock["holders"]) + len(lock["waiters"]) for lock in told["locks"])

        for name, reason, count, words in HOLDS:
            for number in range(1, count + 1):
                start(name, reason, *words)
                while claims(name) < number:
                    time.sleep(0.1)
        seen = screen("lockkit top", [*lockkit, "top"], environ, (80, 20), "Quit")
        url = environ["LOCKKIT_URL"]
    user = f"{getpass.getuser()}@"
    names = {f"{user}{os.uname().nodename}": "ann@box", user: "ann@", url: "redis://locks.example.org"}
    output = []
    for at, text in seen.output:
        for name, shown in names.items():
            text = text.replace(name, shown)  # noqa: PLW2901 (step by step)
        output.append((at, text))
    return Recording(seen.command, output)


HOLDS = (
    ("db/migrate", "schema 41", 4, ()),
    ("nightly/backup", "full backup", 2, ()),
    ("report", "month end", 1, ()),
    ("scratch/disk", "sort", 2, ("--permits", "1", "--capacity", "4")),
)
"""Name, reason, claims and options of the locks on the picture of `lockkit top`."""


def pictures() -> dict[str, str]:
    """Every picture, by the name of its file."""
    demo = render(
        Recording.from_cast(CAST.read_text()),
        "A recording of lockkit demo",
        "A terminal. Five processes take turns to hold one lock. One is killed with kill -9 and the lock "
        "goes on at once; one is stopped for longer than its ttl, and learns that it has lost the lock. A "
        "timeline shows who held the lock when, and the checks say that no two held it at the same time.",
    )
    top = render(
        Recording.from_cast(TOP.read_text()),
        "The first screen of lockkit top",
        "A terminal. On top the store, and how many locks are held and how many claims wait. Below a table: "
        "the lock that has been waited for longest is its first row. Each row has the lock, its state, how "
        "many wait, the longest wait, a bar of what is left of the ttl, and the holder. The last row has "
        "the keys: evict, ask for a release, open, filter, sort, quit.",
    )
    return {"demo.svg": demo, "top.svg": top} | {
        f"{name}.svg": draw().svg() for name, draw in FIGURES.items()
    }


if __name__ == "__main__":
    if "--record" in sys.argv[1:]:
        CAST.write_text(recorded().to_cast())
        TOP.write_text(recorded_top().to_cast())
    if "--dashboard" in sys.argv[1:]:
        from drawing.dashboard import screenshots

        for name, data in screenshots().items():
            (PICTURES / name).write_bytes(data)
    for name, text in pictures().items():
        (PICTURES / name).write_text(text)
