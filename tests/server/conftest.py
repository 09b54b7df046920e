"""A real server on a free loopback port, over a real store."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading

import pytest
import uvicorn

import lockkit
from lockkit.server import make_app
from support.programs import programs

TOKENS = {"view": "v" * 40, "operate": "o" * 40, "admin": "a" * 40}
HOLDER = "the-holder-of-the-tests"


class Answer:
    """The answer to one request."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def json(self):
        return json.loads(self.text)


class Site:
    """A server, and requests to it."""

    def __init__(self, client, application, port):
        self.client = client
        self.application = application
        self.port = port

    def send(self, method, path, body=None, *, token="admin", **headers):
        """Send one request, with exactly these headers beside Host and the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            given.setdefault("authorization", f"Bearer {TOKENS.get(token, token)}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("content-type", "application/json")
        connection.request(method, path, body, given)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **more):
        return self.send("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.send("POST", path, {} if body is None else body, **more)


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("".join(f"{scope}er {scope} {token}\n" for scope, token in TOKENS.items()))
    file.chmod(0o600)
    return file


@pytest.fixture
def client(tmp_path):
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client:
        yield client


@pytest.fixture
def running():
    """Run a server of an application in a thread until the end of the test; gives its port.

    The server's ``startup`` tells when it listens.
    """
    running = []

    def run(application, server):
        up = threading.Event()

        async def startup(sockets=None, usual=server.startup):
            await usual(sockets)
            up.set()

        server.startup = startup
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((application, server, thread))
        assert up.wait(30)
        return server.servers[0].sockets[0].getsockname()[1]

    yield run
    for application, server, thread in running:
        if hasattr(application, "close"):
            application.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def serving(running):
    """Start a server for an application; gives its port."""

    def start(application, **options):
        config = uvicorn.Config(
            application, port=0, lifespan="off", ws="none", log_config=None, access_log=False, **options
        )
        return running(application, uvicorn.Server(config))

    return start


@pytest.fixture
def begun(tmp_path):
    """Start ``lockkit serve``, or another command for it, on a free port; returns process and first line."""
    environ = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        "HOME": str(tmp_path),
        "LOCKKIT_STATE_DIR": str(tmp_path / "state"),
    }
    with programs(stderr=subprocess.PIPE) as start:

        def begin(*words, by=(), **settings):
            serve = [sys.executable, "-m", "lockkit", "serve", "--bind", "127.0.0.1:0"]
            process = start(*by, *serve, *words, env=environ | settings)
            return process, process.stdout.readline()

        yield begin


@pytest.fixture
def site(client, token_file, serving):
    """A server with tokens."""
    application = make_app([client], token_file=str(token_file))
    return Site(client, application, serving(application))


@pytest.fixture
def open_site(client, serving):
    """A server without tokens."""
    application = make_app([client])
    return Site(client, application, serving(application))


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    for name in os.environ:
        if name.startswith("LOCKKIT_"):
            monkeypatch.delenv(name)
