"""HTTP for alert services, with the standard library: POST of JSON, a time limit, checked certificates."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.alerts.outcomes import NotDelivered
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from urllib.parse import SplitResult

__all__ = ["OBJECTIONS", "Answer", "post"]

_MOST_ANSWER = 65_536
"""The most bytes of an answer that are read."""
OBJECTIONS = (400, 413, 422)
"""The codes with which a service objects to what was sent, not to who sent it or when."""


class Answer(NamedTuple):
    """The answer of a service.

    Attributes:
        content: The body.
        date: The time of the service's clock, in whole seconds; None if it does not say.
    """

    content: str
    date: float | None


def post(
    url: str,
    body: object,
    *,
    timeout: float,
    ca_file: str = "",
    headers: Mapping[str, str] | None = None,
    accepted: tuple[int, ...] = (200, 201, 202, 204),
) -> Answer:
    """Send a value as JSON and return the answer. Redirects are not followed: they may leak the secret.

    ``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy`` are observed as by curl; a proxy has http.

    Args:
        url: An address with https or http; a login in it is sent as basic authentication.
        body: The value to send.
        timeout: Seconds for connecting, and again for the whole answer.
        ca_file: A file with the certificates to trust instead of the system's.
        headers: More headers.
        accepted: The codes of success.

    Raises:
        NotDelivered: No connection, or an answer with another code. The text has only the host of the URL.
        TimeoutError: The service has not answered in time, and may have taken the message.
        OSError: The connection broke after the request was sent.
    """
    import http.client

    parts, host, port = _split(url)
    proxy = _proxy(parts.scheme, parts.netloc.rpartition("@")[2])
    connection = _connection(parts.scheme, host, port, proxy, timeout, ca_file)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    told = {"Content-Type": "application/json", "User-Agent": "lockkit", **_login(parts), **(headers or {})}
    if proxy is not None and parts.scheme == "http":
        path = f"http://{parts.netloc.rpartition('@')[2]}{path}"
        told |= _login(proxy, "Proxy-Authorization")
    late, cut = threading.Event(), None
    try:
        try:
            connection.connect()
        except OSError as error:
            way = "" if proxy is None else f" by the proxy {proxy.hostname}"
            raise NotDelivered(
                f"cannot connect to {host}{way}: {error.strerror or type(error).__name__}"
            ) from None
        cut = threading.Timer(timeout, _cut, (connection.sock, late))
        cut.daemon = True
        cut.start()
        connection.request("POST", path, json.dumps(body).encode(), told)
        answer = connection.getresponse()
        code, content = answer.status, answer.read(_MOST_ANSWER).decode(errors="replace")
        if late.is_set():  # what was read by then looks like a whole answer
            raise TimeoutError(f"{host} did not answer in full within {timeout:g} s")
        leads = answer.getheader("Location", "")
        wish, date = answer.getheader("Retry-After", ""), _time(answer.getheader("Date", ""))
    except (http.client.HTTPException, OSError) as error:
        if late.is_set():
            raise TimeoutError(f"{host} did not answer in full within {timeout:g} s") from None
        if isinstance(error, http.client.HTTPException):
            raise OSError(f"{host} broke the connection: {type(error).__name__}") from None
        raise
    finally:
        if cut is not None:
            cut.cancel()
        connection.close()
    if 300 <= code < 400:
        content = f"a redirect to {_origin(url, leads)} which is not followed; set the address that is right"
    if code not in accepted:
        raise NotDelivered(
            f"{host} answered {code}: {content[:200]}",
            retry_after=_seconds(wish),
            rejected=code in OBJECTIONS,
        )
    return Answer(content, date)


def _split(url: str) -> tuple[SplitResult, str, int | None]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if parts.scheme not in ("https", "http") or not host:
        raise NotDelivered("the address must begin with https:// or http:// and a host")
    return parts, host, port


def _connection(
    scheme: str, host: str, port: int | None, proxy: SplitResult | None, timeout: float, ca_file: str
) -> HTTPConnection:
    """A connection to a service, or to the proxy that leads to it."""
    import http.client
    import ssl

    to = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
    if scheme == "http":
        return http.client.HTTPConnection(*to, timeout=timeout)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise NotDelivered(f"cannot use the certificates of {ca_file}: {error}") from None
    connection = http.client.HTTPSConnection(*to, timeout=timeout, context=context)
    if proxy is not None:
        connection.set_tunnel(host, port, _login(proxy, "Proxy-Authorization"))
    return connection


def _proxy(scheme: str, netloc: str) -> SplitResult | None:
    """The proxy of the environment for an address; None if there is none."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(netloc):
        return None
    proxy = urlsplit(url if "://" in url else f"http://{url}")
    try:
        usable = proxy.scheme == "http" and bool(proxy.hostname) and proxy.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise NotDelivered(f"the proxy of the variable {scheme}_proxy or all_proxy must be http://HOST:PORT")
    return proxy


def _login(parts: SplitResult, header: str = "Authorization") -> dict[str, str]:
    """The header with the login of an address; empty if the address has none."""
    from base64 import b64encode
    from urllib.parse import unquote

    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {b64encode(login.encode()).decode()}"}


def _cut(connected: socket.socket, late: threading.Event) -> None:
    """End a connection whose answer comes in drops, each in time."""
    late.set()
    with contextlib.suppress(OSError):
        # Not the method of an SSLSocket, which takes away the object with which another thread reads.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _origin(url: str, leads: str) -> str:
    """Scheme and host of the place to which a redirect leads; the rest may be a secret."""
    from urllib.parse import urljoin, urlsplit

    try:
        to = urlsplit(urljoin(url, leads))
    except ValueError:
        return "nowhere"
    return f"{to.scheme}://{to.hostname}"


def _seconds(wish: str) -> float | None:
    """A Retry-After in seconds; it may also be a date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"\d{1,9}", wish):
        return float(wish)
    date = _time(wish)
    return None if date is None else max(date - time.time(), 0.0)


def _time(date: str) -> float | None:
    """A date of HTTP in seconds of the wall clock; None if it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
