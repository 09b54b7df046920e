"""The outcomes of a delivery, and the removal of secrets from the texts of errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote

from lockkit.errors import LockkitError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.values.redaction import redact

__all__ = ["NotDelivered", "Outcome", "parts_of", "told", "veil"]

_HIDDEN = "***"
_LEAST = 4
"""The shortest secret that is searched for: a shorter one occurs in many ordinary words."""
_MOST_CHARS = 500


class NotDelivered(Exception):
    """Raised by a sink: the service did not take the notification. Any other exception leaves that open.

    Attributes:
        retry_after: Seconds after which the service wants to be asked again; None if it does not say.
        rejected: Whether the service objects to this notification, so that the next one may do better.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, rejected: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.rejected = rejected


class Outcome(NamedTuple):
    """The result of one delivery.

    Attributes:
        channel: The name of the channel.
        delivered: Whether the service took the notification.
        error: The reason if it did not, without secrets; empty if it did.
        seconds: The time that the attempt took.
    """

    channel: str
    delivered: bool
    error: str = ""
    seconds: float = 0.0


def parts_of(url: str) -> tuple[str, ...]:
    """Every part of a URL but its scheme: any may be secret, such as the "host" of ``slack://``."""
    rest = url.partition("://")[2]
    return (rest, *re.split(r"[/?&=@:#,+]+", rest))


def veil(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a text, however they are escaped, and the secret parts of every URL in it."""
    for secret in sorted({*secrets}, key=len, reverse=True):
        for spelling in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), unquote(secret)):
            if len(spelling) >= _LEAST:
                text = text.replace(spelling, _HIDDEN)
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)]+", lambda found: redact(found[0]), text)


def told(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """An error as one short line without secrets."""
    text = (
        str(error) if isinstance(error, NotDelivered | LockkitError) else f"{type(error).__name__}: {error}"
    )
    return printable(veil(text, secrets))[:_MOST_CHARS]
