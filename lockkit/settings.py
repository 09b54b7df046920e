"""Every setting there is: the one table that decoding, ``lockkit config``, the docs and all defaults come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from lockkit.durations import limit, parse, seconds
from lockkit.errors import ConfigError
from lockkit.names import check_namespace
from lockkit.redaction import redact, redact_name, veiled

__all__ = ["SETTINGS", "Setting", "Value", "meant", "read", "redact", "shape", "template", "toml", "veiled"]

Value: TypeAlias = str | float | bool | tuple[str, ...] | None
"""What a setting can be, once read: durations are float seconds, None is "for ever", "never" or "not stated"."""

Kind = Literal["text", "duration", "limit", "choice", "flag", "names"]


class Setting(NamedTuple):
    """One setting.

    Attributes:
        key: Its name in files, URL queries and keywords.
        kind: ``text``; ``duration``: ``"30s"`` or seconds; ``limit``: a duration, or ``"forever"``; ``choice``: one of
            ``allowed``; ``flag``: true or false; ``names``: a list, or a text with commas.
        meaning: One sentence, for the docs and for ``lockkit config init``.
        env: The variable that sets it, if there is one.
        zero: Whether 0 is a duration that makes sense.
        check: Called with the value; raises ConfigError.
        example: What the file for a beginning shows where there is no default; it works with all other defaults.
    """

    key: str
    kind: Kind
    default: Value
    meaning: str
    allowed: tuple[str, ...] = ()
    env: str | None = None
    zero: bool = False
    check: Callable[[str], object] | None = None
    example: Value = None

    def expects(self) -> str:
        """What is allowed, in words."""
        return {
            "text": "a text",
            "duration": 'a duration such as "500ms", "30s", "10m" or "2h", or a number of seconds',
            "limit": f'a duration such as "30s" or "2h", or "{self.endless}"',
            "choice": " or ".join(f'"{choice}"' for choice in self.allowed),
            "flag": "true or false",
            "names": 'a list of texts, or one text with commas: "a,b"',
        }[self.kind]

    @property
    def endless(self) -> str:
        """The word that stands for no limit."""
        return "forever" if self.key == "timeout" else "never"


def _url(text: str) -> None:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise ConfigError(
            f"url must be a store's URL, not {redact(text)!r}",
            hint="for instance sqlite:, memory:, redis://localhost:6379/0",
        )


SETTINGS: Mapping[str, Setting] = {
    setting.key: setting
    for setting in (
        Setting(
            "url",
            "text",
            "sqlite:",
            "Which store; its own options go in the query.",
            env="LOCKKIT_URL",
            check=_url,
        ),
        Setting(
            "namespace",
            "text",
            "default",
            "Prefix of a deployment: equal names in two namespaces never meet.",
            env="LOCKKIT_NAMESPACE",
            check=check_namespace,
        ),
        Setting(
            "ttl",
            "duration",
            30.0,
            "How long the store keeps a silent holder; `lockkit run` takes 60 s where nothing is stated.",
            env="LOCKKIT_TTL",
        ),
        Setting("timeout", "limit", None, "How long a caller waits in all for a lock.", zero=True),
        Setting("max_hold", "limit", None, "End a hold that lasts longer than this."),
        Setting(
            "min_hold",
            "duration",
            0.0,
            "Keep a lock at least this long, even if it is released earlier.",
            zero=True,
        ),
        Setting(
            "lock_delay", "duration", 0.0, "Extra quiet time after a hold that ended ungracefully.", zero=True
        ),
        Setting(
            "scope",
            "choice",
            None,
            "Refuse stores that exclude less than this: one process, this host, or the fleet.",
            allowed=("process", "host", "fleet"),
            env="LOCKKIT_SCOPE",
            example="host",
        ),
        Setting(
            "strict", "flag", False, "Refuse what is known to be unsafe about a store instead of warning."
        ),
        Setting(
            "request_timeout",
            "duration",
            2.0,
            "How long one request to the store may take, and a try to open it.",
        ),
        Setting(
            "state_dir",
            "text",
            None,
            "Where embedded stores and journals live; ~ and {uid} are replaced. Unstated: the user's state folder.",
            env="LOCKKIT_STATE_DIR",
            example="/var/tmp/lockkit-{uid}",  # noqa: S108 (an example; the folder's owner is checked)
        ),
        Setting(
            "cleanup_budget",
            "duration",
            10.0,
            "How long each cleanup hook may take before a release goes on.",
        ),
        Setting(
            "kill_after",
            "duration",
            10.0,
            "`run`: how long before the deadline a command gets TERM, not KILL.",
            zero=True,
        ),
        Setting(
            "on_lost",
            "choice",
            "term",
            "`run`: what becomes of a command whose lock is lost.",
            allowed=("term", "kill", "warn"),
        ),
        Setting("age_warning", "duration", 300.0, "Age of a hold at which it is worth a warning."),
        Setting("age_soft", "duration", 600.0, "Age of a hold that is suspicious."),
        Setting(
            "age_hard",
            "duration",
            900.0,
            "Age of a hold that is too old. The three must rise, and not pass max_hold.",
        ),
        Setting(
            "log_format",
            "choice",
            "text",
            "How the command line and the server log.",
            allowed=("text", "json"),
        ),
        Setting(
            "disable_plugins",
            "names",
            (),
            'Plugins (or distributions) to leave out; "all" for every installed one but lockkit\'s stores.',
            env="LOCKKIT_DISABLE_PLUGINS",
        ),
        Setting(
            "plugin_errors",
            "choice",
            "report",
            "What a plugin's error does; raise is for developing one.",
            allowed=("report", "raise"),
            env="LOCKKIT_PLUGIN_ERRORS",
        ),
    )
}
"""Every setting by key, in the order in which people are shown them."""


def read(setting: Setting, value: object, *, text: bool = False) -> Value:
    """Check a value and bring it into its one form.

    Args:
        setting: What it is for.
        value: From TOML or Python; from an environment or URL query it is a ``str``.
        text: Whether it comes from one of the latter, where everything is text.

    Raises:
        ConfigError: It isn't allowed. The message begins with the setting's key.
    """
    key = setting.key
    match setting.kind, value:
        case _, str() if key != "url" and _strayed(key, value):
            pass  # a URL in the wrong place: its text is quoted below, redacted, and nowhere else
        case "limit", str():
            return limit(value, what=key, zero=setting.zero)
        case "duration", str():
            return parse(value, what=key, zero=setting.zero)
        case (("duration" | "limit"), int() | float()):
            return seconds(value, what=key, zero=setting.zero)
        case "flag", bool():
            return value
        case "flag", str() if text and value.lower() in ("1", "0", "true", "false", "yes", "no", "on", "off"):
            return value.lower() in ("1", "true", "yes", "on")
        case "choice", str() if value in setting.allowed:
            return value
        case "names", str():
            return tuple(filter(None, map(str.strip, value.split(","))))
        case "names", list() | tuple() if all(isinstance(name, str) for name in value):
            return tuple(value)
        case "text", str() if value and "\0" not in value:
            if setting.check is not None:
                setting.check(value)
            return value
    told = (
        repr(redact(value) if key == "url" else redact_name(value))
        if isinstance(value, str)
        else shape(value)
    )
    raise ConfigError(f"{key} must be {setting.expects()}, not {told}", hint=meant(value, setting.allowed))


def _strayed(key: str, value: str) -> bool:
    """Whether a value may be a store's URL, or a login. A path may have colons and an "@" of its own."""
    return "://" in value if key == "state_dir" else redact_name(value) != value


def shape(value: object) -> str:
    """What somebody wrote, fit for an error wherever it stands: its shape, since a text in it can be a URL with a password."""
    match value:
        case str():
            return "a text"
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number"
        case list() | tuple():
            return f"[{', '.join(map(shape, value))}]"
        case Mapping():
            return "a table"
    return f"a {type(value).__name__}"


def meant(word: object, allowed: Iterable[str], *, prefix: str = "") -> str | None:
    """``did you mean ...?`` for a word that resembles one of those allowed, else None.

    Args:
        word: What was written.
        allowed: What could have been.
        prefix: What they all begin with: it makes nothing alike.
    """
    from difflib import get_close_matches  # only ever needed for an error

    known = [each.removeprefix(prefix) for each in allowed]
    bare = word.removeprefix(prefix) if isinstance(word, str) else ""
    close = get_close_matches(bare, known, n=1, cutoff=0.65) if bare and bare not in known else []
    return f"did you mean {prefix}{close[0]}?" if close else None


def toml(setting: Setting, value: Value) -> str:
    """A value as it is written in a file: ``"30s"``, ``true``, ``["a"]``; "-" for one that is not stated."""
    if value is None:
        return f'"{setting.endless}"' if setting.kind == "limit" else "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_quoted(redact_name(name)) for name in value)}]"
    if isinstance(value, str):
        return _quoted(redact(value) if setting.key == "url" else value)
    if value == int(value):
        for size, unit in ((3600, "h"), (60, "m")):
            if value and value % size == 0:
                return f'"{int(value) // size}{unit}"'
        return f'"{int(value)}s"'
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _quoted(text: str) -> str:
    escaped = "".join(
        f"\\{char}" if char in '\\"' else char if char.isprintable() else f"\\U{ord(char):08x}"
        for char in text
    )
    return f'"{escaped}"'


def template() -> str:
    """A configuration file in which everything is commented out: defaults, or an example that works with them, for ``lockkit config init``."""
    lines = [
        "# lockkit's settings. Each is shown with its default where it has one; uncomment what you change.",
        '# Durations are written "500ms", "30s", "10m", "2h" or "1d", or as a number of seconds.',
        "",
    ]
    for setting in SETTINGS.values():
        lines.append(f"# {setting.meaning}")
        if setting.kind in ("choice", "flag"):
            lines.append(f"# Allowed: {setting.expects()}.")
        value = setting.default
        if value is None and setting.kind != "limit":
            lines.append("# Not stated by default; for instance:")
            value = setting.example
        lines += [f"#{setting.key} = {toml(setting, value)}", ""]
    lines += [
        "# Settings under a name, chosen by --profile, LOCKKIT_PROFILE or connect(profile=...).",
        "#[profiles.gpu]",
        '#url = "redis://localhost:6379/0"',
        "",
        "# A plugin's own settings stand under its distribution's name: [plugins.NAME]",
        "",
    ]
    return "\n".join(lines)
