"""A request of HTTP to a service of alerts, with the standard library: a POST of JSON, with a time limit and checked certificates."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

from lockkit.alerts.outcomes import NotDelivered
from lockkit.namedtuples import NamedTuple

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
    """Send a value as JSON and return the answer. A redirect is not followed, because it may hand the secret to another service.

    Args:
        url: An address with https or http.
        body: What to send.
        timeout: Seconds for connecting, and for each answer of the network.
        ca_file: A file with the certificates to trust instead of the system's.
        headers: More headers.
        accepted: The codes of success.

    Raises:
        NotDelivered: The service cannot be reached or answers with another code. The text contains no part of the URL but its host.
        TimeoutError: The service has not answered in time, and may have taken the message.
        OSError: The connection broke after the request was sent.
    """
    import http.client
    import ssl
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if parts.scheme not in ("https", "http") or not host:
        raise NotDelivered("the address must begin with https:// or http:// and a host")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise NotDelivered(f"cannot use the certificates of {ca_file}: {error}") from None
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        try:
            connection.connect()
        except OSError as error:
            raise NotDelivered(
                f"cannot connect to {host}: {error.strerror or type(error).__name__}"
            ) from None
        told = {"Content-Type": "application/json", "User-Agent": "lockkit", **(headers or {})}
        connection.request("POST", path, json.dumps(body).encode(), told)
        answer = connection.getresponse()
        code, content = answer.status, answer.read(_MOST_ANSWER).decode(errors="replace")
        leads = answer.getheader("Location", "")
        wish, date = answer.getheader("Retry-After", ""), _time(answer.getheader("Date", ""))
    except http.client.HTTPException as error:
        raise OSError(f"{host} broke the connection: {type(error).__name__}") from None
    finally:
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
