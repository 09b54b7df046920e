"""The dashboard in a real Chromium, on a real ``lockkit serve``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse

import pytest

import lockkit
from lockkit.testing.processes import ServerMissing
from support.chromium import chromium
from support.dashboard_demo import CARDS, HOST, demo_store, journal_of_the_past, work_on_cards

TOKENS = {"view": "v" * 40, "operate": "o" * 40, "admin": "a" * 40}


class Served:
    """A ``lockkit serve``, which may end and be started again where it was."""

    def __init__(self, folder, *words, tokens=False, config="", **settings):
        folder.mkdir(exist_ok=True)
        self.token_file = folder / "tokens"
        self.state = folder / "state"
        self._words = words
        file = folder / "lockkit.toml"
        # The lock of the alerts would stand among those of the tests.
        file.write_text(config or "[serve]\nalerts = false\n")
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOCKKIT_")},
            "HOME": str(folder),
            "LOCKKIT_STATE_DIR": str(self.state),
            "LOCKKIT_CONFIG": str(file),
            **settings,
        }
        self._environ.pop("PYTHONUNBUFFERED", None)
        if tokens:
            self.write_tokens()
            self._environ["LOCKKIT_SERVE_TOKEN_FILE"] = str(self.token_file)
        self._at = "127.0.0.1:0"
        self._process = None
        self.start()

    def write_tokens(self, *scopes):
        """Write the token file, with the token of each scope."""
        lines = [f"{scope}er {scope} {TOKENS[scope]}\n" for scope in scopes or TOKENS]
        made = self.token_file.with_suffix(".new")
        made.write_text("".join(lines))
        made.chmod(0o600)
        made.rename(self.token_file)

    def start(self):
        """Start it, where it was before if it was."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lockkit", "serve", "--json", "--bind", self._at, *self._words],
            stdout=subprocess.PIPE,
            text=True,
            env=self._environ,
        )
        self.url = json.loads(self._process.stdout.readline())["url"]
        self._at = urllib.parse.urlsplit(self.url).netloc

    def send(self, number):
        """Send a signal."""
        self._process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """End it."""
        self.send(number)
        self._process.communicate(timeout=30)


class Visit:
    """One page of the browser. It records all misbehaviour: asking another site, logging or raising an error.

    Attributes:
        page: The page.
        trouble: What went wrong in it.
        expected: Patterns of messages that are no trouble, because the test brings them about.
    """

    def __init__(self, context, url):
        self.url = url
        self.page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.expected = []
        self.requests = []
        self._trouble = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self._trouble.append(f"raised: {error}"))
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._asked)

    def _asked(self, dialog):
        self._trouble.append(f"opened: {dialog.message}")
        dialog.dismiss()

    def _said(self, message):
        if message.type in ("error", "warning"):
            self._trouble.append(f"{message.type}: {message.text}")

    def goto(self, place=""):
        """Open a page of the server."""
        self.page.goto(self.url + place)
        return self

    def leave(self):
        """Leave the server, which the test is about to end."""
        self.page.goto("about:blank")

    @property
    def trouble(self):
        """Everything that went wrong, and that nobody expected."""
        site = urllib.parse.urlsplit(self.url)
        elsewhere = [
            f"asked: {url}"
            for url in self.requests
            if not url.startswith(("about:", "data:")) and urllib.parse.urlsplit(url)[:2] != site[:2]
        ]
        return elsewhere + [
            one for one in self._trouble if not any(re.search(known, one) for known in self.expected)
        ]


@pytest.fixture(scope="package")
def browser():
    """One Chromium for consecutive tests of this folder. The tests of other folders need asyncio."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DISPLAY", raising=False)
        try:
            with chromium() as found:
                yield found
        except ServerMissing as missing:
            if shutil.which("apt-get"):
                raise  # `make test` installs it there
            pytest.skip(str(missing))


@pytest.fixture
def visit(browser, serve):
    """Open a page in a profile of its own, for a server; the test fails if anything goes wrong in the page.

    The servers of the test end after the pages.
    """
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)  # a bound on the slowness of the machine
    opened = []

    def open_page(served, place="", *, token=None, prepare=lambda _: None, **options):
        url = served if isinstance(served, str) else served.url
        given = {"locale": "en-GB", "timezone_id": "UTC", "reduced_motion": "reduce", **options}
        context = browser.new_context(**given)
        if token:
            context.request.post(f"{url}api/session", data={"token": TOKENS[token]})
        one = Visit(context, url)
        opened.append((context, one))
        prepare(one.page)
        return one.goto(place)

    yield open_page
    trouble = []
    for context, one in opened:
        one.page.evaluate("0")  # what the page has logged by now is told before the answer
        trouble += one.trouble
        context.close()
    assert trouble == []


@pytest.fixture
def serve(tmp_path):
    """Start ``lockkit serve`` on the store of the test, or on another one."""
    running = []

    def start(*words, **settings):
        given = words or ("--url", f"sqlite:{tmp_path}/locks.db")
        one = Served(tmp_path / f"served{len(running)}", *given, **settings)
        running.append(one)
        return one

    yield start
    for one in running:
        one.end(signal.SIGKILL)


@pytest.fixture(scope="package")
def demo(tmp_path_factory):
    """A server of a store that a team seems to have used for hours, with GPUs; its claims do not change."""
    folder = tmp_path_factory.mktemp("demo")
    with demo_store() as url:
        journal_of_the_past(url, folder / "state")
        with work_on_cards(url, folder / "state"):
            served = Served(
                folder,
                *("--url", url),
                tokens=True,
                LOCKKIT_GPU_HOST=HOST,
                LOCKKIT_GPU_SIMULATE=str(CARDS),
            )
            yield served
            served.end(signal.SIGKILL)


@pytest.fixture
def client(tmp_path):
    """A client of the store of the test."""
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    for name in os.environ:
        if name.startswith("LOCKKIT_"):
            monkeypatch.delenv(name)
