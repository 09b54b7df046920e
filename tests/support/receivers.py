"""Receivers of alerts for tests: an HTTP service that answers what a test says, and a mail server."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from lockkit.testing.processes import free_port

__all__ = ["Answer", "Mails", "Receiver", "Request", "mail_server", "receiver"]


class Answer(NamedTuple):
    """An answer of the receiver. It hangs instead until the test ends if the code is 0."""

    code: int = 200
    body: str = "{}"
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Receiver:
    """An HTTP service.

    Attributes:
        url: The address.
        usual: The answer if no other is planned.
        planned: The answers to the next requests.
        requests: Everything that came.
    """

    def __init__(self, usual: Answer, context: ssl.SSLContext | None = None) -> None:
        self.usual = usual
        self.planned: deque[Answer] = deque()
        self.requests: list[Request] = []
        self.came = threading.Condition()
        self.over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                with outer.came:
                    outer.requests.append(Request(self.path, dict(self.headers), body))
                    answer = outer.planned.popleft() if outer.planned else outer.usual
                    outer.came.notify_all()
                if not answer.code:
                    outer.over.wait(60.0)
                    return
                # Without a date of its own if the test has one.
                (self.send_response_only if "Date" in answer.headers else self.send_response)(answer.code)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                content = answer.body.encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST  # noqa: N815 (for a client that follows a redirect)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing about a client that hung up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{scheme}://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def wait(self, number: int) -> list[Request]:
        """The first requests, once so many have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= number, 30.0), self.requests
            return self.requests[:number]

    def close(self) -> None:
        """Stop it."""
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def receiver(usual: Answer | None = None, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver that ends with the context."""
    one = Receiver(usual or Answer(), context)
    try:
        yield one
    finally:
        one.close()


class Mails:
    """The mail that a server took, and how it behaves.

    Attributes:
        mails: Everything that it took.
        refuse: The answer to a mail, instead of taking it.
        address: Where it listens.
    """

    def __init__(self) -> None:
        self.mails: list[tuple[Envelope, EmailMessage]] = []
        self.refuse: str | None = None
        self.address = ""
        self.came = threading.Condition()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        """Take a mail."""
        if self.refuse is not None:
            return self.refuse
        content = envelope.original_content
        assert content is not None
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        with self.came:
            self.mails.append((envelope, mail))
            self.came.notify_all()
        return "250 OK"

    def wait(self, number: int) -> list[EmailMessage]:
        """The first mails, once so many have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.mails) >= number, 30.0), self.mails
            return [mail for _, mail in self.mails[:number]]


@contextmanager
def mail_server(mails: Mails | None = None, port: int | None = None) -> Iterator[Mails]:
    """A mail server that ends with the context."""
    found = mails or Mails()
    controller = Controller(found, hostname="127.0.0.1", port=free_port() if port is None else port)
    controller.start()
    try:
        found.address = f"127.0.0.1:{controller.port}"
        yield found
    finally:
        controller.stop()
