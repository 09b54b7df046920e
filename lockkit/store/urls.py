"""A server's URL, read strictly. Each store itself reads the parts that only its URLs have.

An error quotes the URL without secrets, and only those parts that this redacted URL shows: in a misspelt URL
a password can be anywhere.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - here, under IMPORTS, and not when the first host is encoded
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

from lockkit.errors import ConfigError
from lockkit.values.redaction import redact, veiled

__all__ = ["ESCAPE", "Url", "at"]

ESCAPE = "in a password write / ? # @ : as %2F %3F %23 %40 %3A"
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]*))(?::([0-9]{1,5}))?")
_HIGHEST = 65535


def at(host: str, port: int) -> str:
    """Host and port as they are written in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Url:
    """A URL such as ``scheme://user:password@host:port,host:port/path?option=value``.

    Args:
        url: The URL.
        service: The service that the URL is for, in errors.
        usage: How to write such a URL; the hint of errors.

    Attributes:
        shown: The URL without secrets.
        scheme: The scheme, in lower case.
        path: The path, still escaped.

    Raises:
        ConfigError: The URL cannot be taken apart.
    """

    def __init__(self, url: str, service: str, usage: str) -> None:
        self.shown = redact(url)
        self.service = service
        self.usage = usage
        try:
            parts = urlsplit(url)
        except ValueError:  # the text of this error may quote the login
            raise ConfigError(f"not a URL for {service}: {self.shown}", hint=usage) from None
        self.scheme, self.path = parts.scheme, parts.path
        self._netloc, self._query, self._fragment = parts.netloc, parts.query, parts.fragment

    def wrong(self, text: str, hint: str | None = None) -> ConfigError:
        """The error for something in the URL; the default hint says how to write such a URL."""
        return ConfigError(f"{self.shown}: {text}", hint=self.usage if hint is None else hint)

    def veiled(self, part: str) -> str:
        """A part of the URL, fit to be quoted in an error."""
        return veiled(part, self.shown)

    @property
    def places(self) -> str:
        """The hosts and ports as written."""
        return self._netloc.rpartition("@")[2]

    def login(self, hint: str, *, named: bool) -> tuple[str | None, str | None]:
        """User and password; None for each that is not in the URL. With ``named`` a password needs a user.

        Raises:
            ConfigError: The login is incomplete.
        """
        login, sign, _ = self._netloc.rpartition("@")
        user, colon, password = login.partition(":")
        if (login or (named and sign)) and not (colon and (user or not named)):
            less = "a password and no user" if named else "a password without its colon"
            raise ConfigError(
                f"a URL for {self.service} has a user and no password, or {less}", hint=f"{hint}; {ESCAPE}"
            )
        return unquote(user) or None, unquote(password) if colon else None

    def hosts(self, port: int) -> tuple[tuple[str, int], ...]:
        """Host and port of each server in the URL; ``port`` is the default.

        Raises:
            ConfigError: A host or port cannot be read.
        """
        return tuple(self._host(each, port) for each in self.places.split(","))

    def _host(self, text: str, port: int) -> tuple[str, int]:
        """``host``, ``host:port`` or ``[address]:port``."""
        match = _HOST.fullmatch(text)
        if match is None or int(match[3] or port) > _HIGHEST:
            # Do not quote text behind a colon: if "@host" was forgotten, that text is the password.
            told = text.partition(":")[0] + (":..." if ":" in text else "")
            raise ConfigError(
                f"not a host and port in a URL for {self.service}: {told!r}", hint=f"{self.usage}; {ESCAPE}"
            )
        host = unquote(match[1] or match[2]) or "localhost"
        try:
            host.encode("idna")
        except UnicodeError:
            raise ConfigError(
                f"not a host in a URL for {self.service}: {host[:40]!r}", hint=self.usage
            ) from None
        return host, int(match[3] or port)

    def options(self, allowed: Sequence[str]) -> dict[str, str]:
        """The options of the query.

        Raises:
            ConfigError: The URL has an option that is not allowed, or a fragment.
        """
        options = dict(parse_qsl(self._query, keep_blank_values=True))
        unknown = sorted(options.keys() - set(allowed))
        if not unknown and not self._fragment:
            return options
        if "@" in self._query + self._fragment:
            raise self.wrong("no such option", ESCAPE)
        told = ", ".join(map(self.veiled, unknown)) or self.veiled(self._fragment)
        raise self.wrong(f"no such option: {told}", f"allowed options: {', '.join(allowed)}")

    def yes(self, options: Mapping[str, str], option: str) -> bool:
        """True if an option that is ``yes`` or ``no`` is yes.

        Raises:
            ConfigError: The value is neither.
        """
        value = options.get(option, "no")
        if value not in ("yes", "no"):
            raise self.wrong(f"{option} must be yes or no, not {self.veiled(value)!r}", "")
        return value == "yes"
