"""The page behind a proxy that removes a prefix, and within an application of a user."""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.parse
from contextlib import contextmanager

import pytest
import uvicorn

from lockkit.server import make_app

from .conftest import TOKENS

expect = pytest.importorskip("playwright.sync_api").expect

REFUSED = r"Failed to load resource: the server responded with a status of 401"
"""The browser's own message about an answer that asks for a token."""

HOP = {"connection", "keep-alive", "transfer-encoding"}
"""Headers that are for the next hop alone."""


def proxy_to(port, prefix):
    """A class of handlers that forward requests without their prefix, and pass streams on as they come."""

    class Forwarding(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # the end of an answer is the end of the connection

        def forward(self):
            if not self.path.startswith(prefix + "/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            upstream = http.client.HTTPConnection("127.0.0.1", port)
            try:
                given = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                upstream.request(self.command, self.path.removeprefix(prefix), body, given)
                answer = upstream.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP:
                        self.send_header(name, value)
                self.end_headers()
                while part := answer.read1():
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:
                self.close_connection = True  # the browser has gone
            finally:
                upstream.close()

        do_GET = do_POST = forward  # noqa: N815 (names of the base class)

        def log_message(self, *_):
            pass

    return Forwarding


@contextmanager
def proxied(url, prefix):
    """A proxy in front of a server; gives the address of the server behind the prefix."""
    port = int(url.split(":")[2].partition("/")[0])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), proxy_to(port, prefix)) as proxy:
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}{prefix}/"
        finally:
            proxy.shutdown()
            thread.join()


@pytest.fixture
def mounted(client, tmp_path):
    """The application in a FastAPI application, with tokens; gives its address."""
    fastapi = pytest.importorskip("fastapi")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ann operate {TOKENS['operate']}\n")
    tokens.chmod(0o600)
    application = make_app([client], token_file=str(tokens))
    outer = fastapi.FastAPI()
    outer.mount("/team/locks", application)
    server = uvicorn.Server(
        uvicorn.Config(outer, port=0, lifespan="off", ws="none", log_config=None, access_log=False)
    )
    up = threading.Event()

    async def startup(sockets=None, usual=server.startup):
        await usual(sockets)
        up.set()

    server.startup = startup
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert up.wait(30)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/team/locks/"
    finally:
        application.close()
        server.should_exit = True
        thread.join()


def use(one, client):
    """Sign in, see a lock come, ask for its release; all below the prefix."""
    page = one.page
    page.get_by_label("Token").fill(TOKENS["operate"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#live")).to_have_text("Live")
    with client.lock("team/a").acquire() as lease:
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="team/a", exact=True))
        row.get_by_role("button", name="Ask to release").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("needed")
        dialog.get_by_role("button", name="Ask").click()
        expect(row).to_contain_text("needed")
        assert client.inspect("team/a").claims[0].claim_id == lease.claim_id
    expect(row).to_have_count(0)
    assert {cookie["path"] for cookie in page.context.cookies()} == {
        urllib.parse.urlsplit(one.url).path.removesuffix("/")
    }
    assert [url for url in one.requests if not url.startswith(one.url)] == []


def test_behind_a_prefix_that_a_proxy_removes(visit, serve, client):
    served = serve("--url", client.url, "--root-path", "/locks", tokens=True)

    with proxied(served.url, "/locks") as url:
        one = visit(url)
        one.expected.append(REFUSED)
        use(one, client)
        one.leave()


def test_in_an_application_of_fastapi(mounted, visit, client):
    one = visit(mounted)
    one.expected.append(REFUSED)

    use(one, client)


def test_the_address_without_its_last_slash_leads_to_the_page(mounted, visit):
    one = visit(mounted.removesuffix("/"))
    one.expected.append(REFUSED)

    expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert one.page.url.partition("#")[0] == mounted
