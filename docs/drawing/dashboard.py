"""Screenshots of the dashboard: a real Chromium on a real `lockkit serve` whose store looks hours old."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

__all__ = ["SHOTS", "screenshots"]

URL = "redis://locks.example.org"
TOKEN = "t" * 40


class Shot(NamedTuple):
    """One picture: its place in the dashboard, colours and height, and a text of the complete page."""

    place: str
    colours: str
    height: int
    awaits: str


SHOTS = {
    "dashboard-locks.png": Shot("#/locks", "light", 860, "nightly/backup"),
    "dashboard-dark.png": Shot("#/locks", "dark", 860, "nightly/backup"),
    "dashboard-lock.png": Shot("#/lock?name=db%2Fmigrate", "light", 900, "12 of 19 tables"),
    "dashboard-gpus.png": Shot("#/gpus", "light", 760, "train 12"),
}
"""The pictures, by the names of their files."""


def screenshots() -> dict[str, bytes]:
    """Every picture, taken now."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from support.chromium import chromium
    from support.dashboard_demo import demo_store, journal_of_the_past, work_on_cards

    with TemporaryDirectory() as folder, ExitStack() as ended:
        state = Path(folder) / "state"
        url = ended.enter_context(demo_store())
        journal_of_the_past(url, state)
        ended.enter_context(work_on_cards(url, state))
        address = ended.enter_context(_served(url, state))
        browser = ended.enter_context(chromium())
        return {name: _taken(browser.new_page, address, url, shot) for name, shot in SHOTS.items()}


@contextmanager
def _served(url: str, state: Path) -> Iterator[str]:
    """A `lockkit serve` on the store."""
    from support.dashboard_demo import CARDS, HOST

    config, tokens = state.parent / "lockkit.toml", state.parent / "tokens"
    config.write_text("[serve]\nalerts = false\n")
    tokens.write_text(f"ann operate {TOKEN}\n")
    tokens.chmod(0o600)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    environ |= {
        "LOCKKIT_CONFIG": str(config),
        "LOCKKIT_GPU_HOST": HOST,
        "LOCKKIT_GPU_SIMULATE": str(CARDS),
        "LOCKKIT_SERVE_TOKEN_FILE": str(tokens),
        "LOCKKIT_STATE_DIR": str(state),
    }
    line = [sys.executable, "-m", "lockkit", "serve", "--json", "--bind", "127.0.0.1:0", "--url", url]
    with subprocess.Popen(line, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def _taken(new_page: Callable[..., Page], address: str, url: str, shot: Shot) -> bytes:
    """One picture."""
    page = new_page(
        viewport={"width": 1200, "height": shot.height},
        color_scheme=shot.colours,
        locale="en-GB",
        timezone_id="UTC",
        reduced_motion="reduce",
    )
    user = getpass.getuser()
    names = {
        os.uname().nodename: "node1",
        f'"user":"{user}"': '"user":"ann"',
        f"{user}@": "ann@",
        Path(sys.argv[0]).name: "train.py",
        url: URL,
    }

    def renamed(route: Route) -> None:
        """Answer as the server does, but with the names of the story in place of this machine's."""
        answer = route.fetch()
        text = answer.text()
        for name, shown in names.items():
            text = text.replace(name, shown)
        route.fulfill(response=answer, body=text)

    page.route(lambda asked: "/api/" in asked and "/api/events" not in asked, renamed)
    page.context.request.post(f"{address}api/session", data={"token": TOKEN})
    page.goto(address + shot.place)
    page.get_by_text(shot.awaits).first.wait_for()
    picture = page.screenshot()
    page.unroute_all(behavior="ignoreErrors")
    page.close()
    return picture
