"""The table of all settings with their defaults, and the check of a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.durations import limit, parse, seconds
from lockkit.values.names import check_namespace
from lockkit.values.redaction import declare, redact, redact_name, veiled
from lockkit.values.sizes import parse as parse_size

__all__ = [
    "IN_QUERY",
    "SETTINGS",
    "TABLES",
    "ConfigFields",
    "Setting",
    "Value",
    "allowed_hint",
    "meant",
    "nearest",
    "read",
    "redact",
    "shape",
    "veiled",
]

Value: TypeAlias = str | float | bool | tuple[str, ...] | None
"""The value of a setting. Durations are float seconds; None means "for ever", "never" or "not set"."""

_TABLES = ("metrics", "gpu", "alerts", "journal", "serve")
"""The TOML tables of settings, each the prefix of its keys."""
Kind = Literal["text", "duration", "limit", "choice", "flag", "names", "count"]
_KINDS: Mapping[str, Kind] = {
    "str": "text",
    "str | None": "text",
    "float": "duration",
    "float | None": "limit",
    "bool": "flag",
    "int": "count",
    "tuple[str, ...]": "names",
}
"""The kind of a setting by its type, unless that is a ``Literal``."""


class Setting(NamedTuple):
    """One setting.

    Attributes:
        key: The name in URL queries and keywords, and in files unless it has a ``table``.
        annotation: The type of a value, as it is written in :class:`ConfigFields`.
        kind: ``text``; ``duration``: ``"30s"`` or seconds; ``limit``: a duration or ``"forever"``;
            ``choice``: one of ``allowed``; ``flag``: true or false; ``names``: a list, or a text with commas;
            ``count``: a whole number from 0 to ``most``.
        allowed: The values of a choice.
        default: The value if the setting is not set.
        meaning: One sentence, for the docs and for ``lockkit config init``.
        env: The environment variable of the setting, if there is one.
        zero: Whether 0 is an allowed duration.
        check: A function that is called with the value and may raise ConfigError.
        form: The pattern of a text, and in words.
        example: A value for ``lockkit config init`` if there is no default. It works with all defaults.
        most: The largest allowed count.
    """

    key: str
    annotation: str
    default: Value
    meaning: str
    env: str | None = None
    zero: bool = False
    check: Callable[[str], object] | None = None
    form: tuple[str, str] = ("(?s).*", "a text")
    example: Value = None
    most: int = 1_000_000

    @property
    def kind(self) -> Kind:
        """The kind of the values, by their type."""
        return "choice" if self.annotation.startswith("Literal[") else _KINDS[self.annotation]

    @property
    def allowed(self) -> tuple[str, ...]:
        """The values of a choice."""
        return tuple(self.annotation.split("'")[1::2])

    @property
    def table(self) -> str | None:
        """The TOML table and key prefix: ``gpu_simulate`` is ``simulate`` in ``[gpu]``."""
        prefix = self.key.partition("_")[0]
        return prefix if prefix in _TABLES else None

    @property
    def place(self) -> str:
        """The key with its table, as in files: ``ttl``, ``gpu.simulate``, ``journal.enabled``."""
        if self.table == self.key:
            return f"{self.table}.enabled"
        return self.key.replace("_", ".", 1) if self.table else self.key

    def expects(self) -> str:
        """The allowed values, in words."""
        return {
            "text": self.form[1],
            "duration": 'a duration such as "500ms", "30s", "10m" or "2h", or a number of seconds',
            "limit": f'a duration such as "30s" or "2h", or "{self.endless}"',
            "choice": " or ".join(f'"{choice}"' for choice in self.allowed),
            "flag": "true or false",
            "names": 'a list of texts, or one text with commas: "a,b"',
            "count": f"a whole number from 0 to {self.most}",
        }[self.kind]

    @property
    def endless(self) -> str:
        """The word for no limit."""
        return "forever" if self.key == "timeout" else "never"


def _url(text: str) -> None:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise ConfigError(
            f"url must be a store's URL, not {redact(text)!r}",
            hint="for instance sqlite:, memory:, redis://localhost:6379/0",
        )


def _size(text: str) -> None:
    parse_size(text, what="gpu.ignore_memory", zero=True)


def setting(
    default: Value,
    meaning: str,
    *,
    env: str | None = None,
    zero: bool = False,
    check: Callable[[str], object] | None = None,
    form: tuple[str, str] = ("(?s).*", "a text"),
    example: Value = None,
    most: int = 1_000_000,
) -> Any:
    """Declare a field of :class:`ConfigFields` as a :class:`Setting`. The field's type gives the kind."""
    return Setting("", "", default, meaning, env, zero, check, form, example, most)


class ConfigFields(NamedTuple):
    """The fields of :class:`lockkit.config.Config`. This is the only declaration of each setting.

    Everything else is made from it: the keywords of ``connect``, the checks of files, variables and URLs, the
    file of ``lockkit config init``, and the tables of the docs. Durations are in seconds.
    """

    profile: str | None
    plugins: Mapping[str, Mapping[str, object]]
    pools: Mapping[str, Mapping[str, int]]
    alerts: Mapping[str, Mapping[str, Mapping[str, object]]]
    sources: Mapping[str, str]
    files: Mapping[str, object]
    arguments: Mapping[str, object]

    url: str = setting(
        "sqlite:",
        "The store to use. Options of the store go into the query of the URL.",
        env="LOCKKIT_URL",
        check=_url,
    )
    namespace: str = setting(
        "default",
        "The prefix of a deployment: equal names in two namespaces are two locks.",
        env="LOCKKIT_NAMESPACE",
        check=check_namespace,
    )
    ttl: float = setting(
        30.0,
        "How long the store keeps a hold that is not renewed; `lockkit run` uses 60 s if it is not set.",
        env="LOCKKIT_TTL",
    )
    timeout: float | None = setting(
        None, "How long a caller waits for a lock in total.", env="LOCKKIT_TIMEOUT", zero=True
    )
    max_hold: float | None = setting(None, "End a hold that lasts longer than this.", env="LOCKKIT_MAX_HOLD")
    min_hold: float = setting(
        0.0,
        "Keep the lock blocked for at least this long after its grant, even if it is released earlier.",
        zero=True,
    )
    lock_delay: float = setting(
        0.0, "Keep the lock blocked for this long after a hold that ended without a release.", zero=True
    )
    scope: Literal["process", "user", "host", "fleet"] | None = setting(
        None,
        "How far a lock must reach: this process, this user's processes on this host, all users of this "
        "host, or the fleet. A store that reaches less far is refused.",
        env="LOCKKIT_SCOPE",
        example="user",
    )
    strict: bool = setting(
        False,
        "Refuse what is known to be unsafe about a store, and a ttl that was set and that the store does not "
        "have, instead of warning.",
        env="LOCKKIT_STRICT",
    )
    request_timeout: float = setting(
        2.0, "How long one request to the store, or one attempt to open it, may take."
    )
    state_dir: str | None = setting(
        None,
        "The folder of embedded stores and journals; ~ and {uid} are replaced. Not set: the user's state "
        "folder.",
        env="LOCKKIT_STATE_DIR",
        example="/var/tmp/lockkit-{uid}",  # noqa: S108 (an example; the folder's owner is checked)
    )
    cleanup_budget: float = setting(10.0, "How long each cleanup hook may take before the release continues.")
    kill_after: float = setting(
        10.0, "`run`: the time from SIGTERM to SIGKILL for a command whose lock is lost.", zero=True
    )
    on_lost: Literal["term", "kill", "warn"] = setting(
        "term", "`run`: what to do with a command whose lock is lost."
    )
    age_warning: float = setting(300.0, "The age from which on a hold deserves a warning.")
    age_soft: float = setting(600.0, "The age from which on a hold is suspicious.")
    age_hard: float = setting(
        900.0,
        "The age from which on a hold is too old. The three ages must rise, and age_hard must not exceed "
        "max_hold.",
    )
    recover_limit: int = setting(
        20,
        "`recover`: the most claims that all recoverers of a namespace together remove or evict within an "
        "hour; 0: none.",
        most=200,
    )
    log_format: Literal["text", "json"] = setting(
        "text", "The format of the logs of the command line and the server.", env="LOCKKIT_LOG_FORMAT"
    )
    disable_plugins: tuple[str, ...] = setting(
        (),
        'The plugins (or distributions) to leave out; "all" leaves out every installed plugin except '
        "lockkit's stores.",
        env="LOCKKIT_DISABLE_PLUGINS",
    )
    plugin_errors: Literal["report", "raise"] = setting(
        "report",
        "Whether an error of a plugin is reported or raised; raise is for the development of plugins.",
        env="LOCKKIT_PLUGIN_ERRORS",
    )

    metrics_enabled: bool = setting(
        False,
        "Whether programs that use lockkit keep metrics in prometheus_client's default registry.",
        env="LOCKKIT_METRICS",
    )
    metrics_names: tuple[str, ...] = setting(
        (),
        "The locks that have a value of their own in the label `lock` of metrics, as names or patterns such "
        'as "gpu/*"; all others are `other`.',
    )
    metrics_raw_names: bool = setting(
        False,
        "Whether a lock that matches none of `metrics.names` has its name as label, until there are "
        "`metrics.most` of them.",
    )
    metrics_most: int = setting(
        1000,
        "The most locks that an exporter reads, and the most that are labelled with their names.",
        most=100_000,
    )

    gpu_simulate: int = setting(
        0,
        "Simulate this many GPUs in place of those of the host, to try lockkit's commands for GPUs on any "
        "machine; 0: none.",
        env="LOCKKIT_GPU_SIMULATE",
        most=64,
    )
    gpu_host: str | None = setting(
        None,
        "The name of this host for those who share its GPUs; the same in all its containers, which must set "
        "it. Not set: the host name.",
        env="LOCKKIT_GPU_HOST",
        form=(r"[A-Za-z0-9._-]{1,64}", "a host name: at most 64 letters, digits, '.', '_' and '-'"),
        example="box",
    )
    gpu_watch: bool = setting(
        True,
        "Whether the driver is kept open while GPUs are held, and watched for faults, idle GPUs, and holders "
        "that use more than they declared.",
        env="LOCKKIT_GPU_WATCH",
    )
    gpu_patience: float = setting(
        5.0,
        "How long a driver may take for one look at all GPUs (for a request at most 25 s): cards without "
        "persistence mode wake slowly.",
        env="LOCKKIT_GPU_PATIENCE",
    )
    gpu_ignore: tuple[str, ...] = setting(
        (),
        'Programs that do not make a GPU busy, by name, such as "Xorg" or "nvidia-cuda-mps-server", as long '
        "as they use no more than `gpu.ignore_memory`.",
    )
    gpu_ignore_memory: str = setting(
        "1GiB",
        "How much of a GPU's memory may be in use, beyond the driver's reserve, by ignored programs and by "
        "those that the driver does not list, such as a desktop.",
        check=_size,
    )
    gpu_idle_below: int = setting(
        3, "The percentage of utilisation below which a GPU that is held counts as idle.", most=100
    )
    gpu_idle_after: float | None = setting(1200.0, "How long a GPU that is held must be idle to be reported.")

    alerts_group_wait: float = setting(
        30.0,
        "How long the first notification about a group of alerts waits for more of them; what ends meanwhile "
        "is not told.",
    )
    alerts_group_interval: float = setting(
        300.0, "The least time between two notifications about a group whose alerts change."
    )
    alerts_repeat_interval: float | None = setting(
        14_400.0,
        "When a group whose alerts have not changed is told again, counted from its last notification.",
    )
    alerts_most_per_hour: int = setting(
        60,
        "The most notifications in an hour, about whatever; further ones wait, the most severe first.",
        most=3600,
    )
    alerts_look_every: float = setting(30.0, "The time between two looks at the store, and at the rules.")

    journal: bool = setting(
        False,
        "Whether what happens is written to the event journal, which `lockkit history`, `report` and `audit` "
        "read. `journal = true` is short for this.",
        env="LOCKKIT_JOURNAL",
    )
    journal_folder: str | None = setting(
        None,
        "The folder of the event journal. Not set: the folder journal in the state folder, or the shared "
        "folder of a store of all users of the host.",
        form=(r"(?s)(/|~/).*", "an absolute path, or begin with ~/"),
        example="/var/tmp/lockkit-journal",  # noqa: S108 (an example)
    )
    journal_max_size: int = setting(
        16,
        "The size in MiB from which a file of the event journal is renamed, and another one begun.",
        most=4096,
    )
    journal_max_age: float | None = setting(
        30 * 86_400.0,
        "How long renamed files of the event journal are kept; a file is renamed after a day at the latest.",
    )
    journal_keep: int = setting(31, "How many renamed files of the event journal are kept.", most=1000)

    serve_token_file: str | None = setting(
        None,
        "`serve`: the file with the tokens of those who may use the server, which only its owner may read. "
        "Not set: everybody may look, and nobody may change anything.",
        env="LOCKKIT_SERVE_TOKEN_FILE",
        example="/etc/lockkit/serve-tokens",
    )
    serve_hosts: tuple[str, ...] = setting(
        (),
        "`serve`: names by which browsers call the server, beside those of its host; for instance that of a "
        "proxy.",
    )
    serve_proxies: tuple[str, ...] = setting(
        (),
        "`serve`: addresses or networks of proxies in front of the server, whose X-Forwarded-For and "
        "X-Forwarded-Proto count. Of anybody else they do not.",
        example=("10.0.0.7", "10.1.0.0/24"),
    )
    serve_public_url: str | None = setting(
        None,
        "`serve`: the address at which people find the page, such as that of a proxy; notifications of "
        "alerts link to it, and its host needs no `serve.hosts`.",
        form=(
            r"https?://[^\s/?#@]+(/[^\s?#]*)?",
            "https:// or http://, a host and perhaps a path, and nothing else",
        ),
        example="https://intranet.example/locks/",
    )
    serve_recover: float | None = setting(
        None,
        "`serve`: how often the server removes what dead owners left behind, as `lockkit recover --yes "
        "--every` does; never if it is not set.",
        example=30.0,
    )
    serve_alerts: bool = setting(
        True,
        "`serve`: whether the server runs the alert engine, if a rule is in force, and tells alerts over the "
        "channels.",
    )


SETTINGS: Mapping[str, Setting] = {
    # typing.NamedTuple, from Python 3.14 on, wraps a type as it is written.
    key: declared._replace(key=key, annotation=getattr(type_, "__forward_arg__", type_))
    for key, type_ in ConfigFields.__annotations__.items()
    if (declared := ConfigFields._field_defaults.get(key)) is not None
}
"""Every setting by key, in the order in which they are shown."""

IN_QUERY: Mapping[str, Setting] = {key: setting for key, setting in SETTINGS.items() if key != "url"}
"""The settings that the query of every URL may have."""
declare(None, IN_QUERY)

TABLES: Mapping[str | None, Mapping[str, Setting]] = {
    table: {each.place.rpartition(".")[2]: each for each in SETTINGS.values() if each.table == table}
    for table in (None, *_TABLES)
}
"""The settings of each table of a file, by their key there; under None those outside of tables."""


def read(setting: Setting, value: object, *, text: bool = False) -> Value:
    """Check a value and convert it into its one form.

    ``text``: the value comes from an environment or URL query, where everything is text.

    Raises:
        ConfigError: The value is not allowed. The message begins with the setting's place.
    """
    key = setting.place
    match setting.kind, value:
        case _, str() if key not in ("url", "serve.public_url") and _strayed(key, value):
            pass  # a URL in the wrong place: its text is quoted below, redacted, and nowhere else
        case "limit", str():
            return limit(value, what=key, zero=setting.zero)
        case "duration", str():
            return parse(value, what=key, zero=setting.zero)
        case (("duration" | "limit"), int() | float()):
            return seconds(value, what=key, zero=setting.zero)
        case "count", int() if not isinstance(value, bool) and 0 <= value <= setting.most:
            return value
        case "count", str() if text and re.fullmatch(r"[0-9]{1,9}", value) and int(value) <= setting.most:
            return int(value)
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
        case "text", str() if value and "\0" not in value and re.fullmatch(setting.form[0], value):
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
    """Whether a value may be a store's URL, or a login. A path may contain colons and an "@" all the same."""
    return "://" in value if key == "state_dir" else redact_name(value) != value


def shape(value: object) -> str:
    """The shape of a value, for an error message. The value is hidden: its URL may contain a password."""
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


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one known word that starts with this one; else the nearest spelling, or None.

    A misspelling is about as long as the word: others share letters by chance, as ``host`` and ``gpu_host``.
    """
    from difflib import get_close_matches  # only ever needed for an error

    words = list(known)
    begun = [each for each in words if len(word) > 2 and each.startswith(word)]
    alike = [each for each in words if abs(len(each) - len(word)) <= 1 + len(word) // 5]
    found = begun if len(begun) == 1 else get_close_matches(word, alike, n=1, cutoff=0.65)
    return next(iter(found), None)


def meant(word: object, allowed: Iterable[str], *, prefix: str = "") -> str | None:
    """``did you mean ...?`` for a word that resembles one of those allowed, else None.

    ``prefix`` is the common beginning of all allowed words, which is ignored in the comparison.
    """
    known = [each.removeprefix(prefix) for each in allowed]
    bare = word.removeprefix(prefix) if isinstance(word, str) else ""
    close = nearest(bare, known) if bare and bare not in known else None
    return None if close is None else f"did you mean {prefix}{close}?"


def allowed_hint(word: object, allowed: Iterable[str]) -> str:
    """The hint for a word that is not allowed: the one that was probably meant, and all that are allowed."""
    known = list(allowed)
    return f"{meant(word, known) or ''} allowed: {', '.join(known)}".strip()
