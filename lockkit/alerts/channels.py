"""The tables ``[alerts.channels.NAME]`` and their secrets. A channel is a way to people, such as e-mail."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lockkit.alerts.notification import Severity
from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.durations import parse, seconds
from lockkit.values.redaction import redact_name

__all__ = ["KEYS", "TYPES", "Channel", "ChannelKey", "channel", "secret"]

TYPES: Mapping[str, str] = {
    "apprise": "Any URL of apprise: e-mail, Slack, a webhook and a hundred others. Needs the extra `alerts`.",
    "pagerduty": "PagerDuty, Events API v2. An incident is resolved with its alerts.",
    "alertmanager": "An Alertmanager, API v2. An alert is resolved there as soon as it is here.",
    "dingtalk": "A custom robot of DingTalk. "
    "Unlike apprise it looks at DingTalk's answer, so a refused message is sent again.",
}
"""Every type of channel, with its meaning."""
_SEVERITIES: tuple[Severity, ...] = ("P0", "P1", "P2")
_FORMATS = ("text", "markdown", "html")
_MOST_BYTES = 65_536
"""The largest file that a secret is read from, in bytes."""


class ChannelKey(NamedTuple):
    """A key that the table of a channel may have, for the docs and for errors."""

    key: str
    default: str
    meaning: str


KEYS: tuple[ChannelKey, ...] = (
    ChannelKey("type", '`"apprise"`', "The type of the channel."),
    ChannelKey(
        "url",
        "none; PagerDuty's for `pagerduty`, DingTalk's for `dingtalk`",
        'The address: `"env:VARIABLE"` or `"file:/path"` if it contains a secret, or the URL itself.',
    ),
    ChannelKey(
        "key",
        "none",
        "The secret of the service, as `env:` or `file:`: the routing key of `pagerduty`, "
        "the access token of `dingtalk`, a bearer token for `alertmanager`.",
    ),
    ChannelKey("sign", "none", "`dingtalk`: the secret by which messages are signed, as `env:` or `file:`."),
    ChannelKey("severities", '`["P0", "P1", "P2"]`', "The severities of the alerts that the channel is for."),
    ChannelKey("limit", "30", "The most messages in any `window`, from 1 to 1000."),
    ChannelKey("window", '`"1h"`', "The time for which `limit` counts."),
    ChannelKey(
        "timeout",
        '`"10s"`',
        "The time that each step of an attempt may take. "
        "An attempt is given up after three times as long and 5 s.",
    ),
    ChannelKey("format", "what the service takes", '`apprise`: `"text"`, `"markdown"` or `"html"`.'),
    ChannelKey(
        "ca_file",
        "the system's",
        "`pagerduty`, `alertmanager` and `dingtalk`: a file with the certificates to trust.",
    ),
)
"""Every key of a channel."""


class Channel(NamedTuple):
    """A channel as the configuration describes it; :data:`KEYS` says what each key means.

    Durations are in seconds, and a text that is not set is empty. The secrets are not read yet; see
    :func:`secret`.
    """

    name: str
    type: str = "apprise"
    url: str = ""
    key: str = ""
    sign: str = ""
    severities: tuple[Severity, ...] = _SEVERITIES
    limit: int = 30
    window: float = 3600.0
    timeout: float = 10.0
    format: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        return f"Channel({self.name!r}, type={self.type!r}, severities={self.severities})"


def channel(name: str, table: Mapping[str, object]) -> Channel:
    """Read the table of a channel.

    Raises:
        ConfigError: A key is unknown or missing, or a value not allowed. No url, key or sign is shown.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
        raise ConfigError(
            f"a channel must not be called {redact_name(name)!r}",
            hint="use at most 32 letters, digits, '_' and '-'",
        )
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _CHECKS:
            raise ConfigError(f"unknown key {redact_name(key)}", hint=f"allowed: {', '.join(_CHECKS)}")
        check, expected = _CHECKS[key]
        values[key] = check(value)
        if values[key] is None:
            raise ConfigError(f"{key} must be {expected}")
    found = Channel(name, **values)
    if found.type in ("apprise", "alertmanager") and not found.url:
        raise ConfigError("url is missing", hint='write url = "env:VARIABLE" or url = "file:/path"')
    if found.type in ("pagerduty", "dingtalk") and not found.key:
        raise ConfigError("key is missing", hint='write key = "env:VARIABLE" or key = "file:/path"')
    return found


def secret(reference: str, environ: Mapping[str, str] | None = None) -> str:
    """The text that a reference names: ``env:VARIABLE``, ``file:/path`` (stripped), or the reference itself.

    A file is read each time, so that a new secret is used without a restart.

    Raises:
        ConfigError: The variable is unset, or the file unreadable, empty, over 64 KiB, or world-writable.
    """
    if reference.startswith("env:"):
        variable = reference.removeprefix("env:")
        found = (os.environ if environ is None else environ).get(variable, "").strip()
        if not found:
            raise ConfigError(
                f"the variable {variable} is not set", hint="set it for the process that sends alerts"
            )
        return found
    if reference.startswith("file:"):
        return _from_file(Path(reference.removeprefix("file:")))
    return reference


def _from_file(path: Path) -> str:
    hint = "let the user that sends alerts read it"
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())
            if seen.st_mode & stat.S_IWOTH:
                raise ConfigError(f"everybody may write to {path}", hint=f"chmod o-w {path}")
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint=hint) from None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > _MOST_BYTES:
        raise ConfigError(f"{path} contains no secret", hint="write the secret into it as one line of text")
    return text


def _one_of(allowed: tuple[str, ...]) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and value in allowed else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None


def _reference(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"env:\w+|file:/.+", value) else None


def _severities(value: object) -> tuple[Severity, ...] | None:
    if not isinstance(value, list) or not value or any(each not in _SEVERITIES for each in value):
        return None
    return tuple(each for each in _SEVERITIES if each in value)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000 else None


def _duration(value: object) -> float | None:
    try:
        return parse(value, what="") if isinstance(value, str) else seconds(value, what="")
    except ConfigError:
        return None


_KEPT_APART = '"env:VARIABLE" or "file:/path", so that the secret does not stand in the configuration'
_CHECKS: Mapping[str, tuple[Callable[[object], object], str]] = {
    "type": (_one_of(tuple(TYPES)), " or ".join(f'"{each}"' for each in TYPES)),
    "url": (_text, 'a text, such as "env:VARIABLE", "file:/path" or a URL'),
    "key": (_reference, _KEPT_APART),
    "sign": (_reference, _KEPT_APART),
    "severities": (_severities, 'a list of "P0", "P1" and "P2"'),
    "limit": (_count, "a whole number from 1 to 1000"),
    "window": (_duration, 'a duration such as "10m" or "1h"'),
    "timeout": (_duration, 'a duration such as "10s"'),
    "format": (_one_of(_FORMATS), '"text", "markdown" or "html"'),
    "ca_file": (_text, "the path of a file"),
}
"""The check of each key, which returns None for a value that is not allowed; and the allowed values."""
