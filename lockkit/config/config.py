"""Configuration: the value of every setting, and its source. See :mod:`lockkit.config.precedence`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from lockkit.config import configfiles, layers, precedence
from lockkit.config.configfiles import ALERT_TABLES, ETC, stamp
from lockkit.config.crosscheck import DEFAULT, misfits
from lockkit.config.layers import ARGUMENT, Found, Layer, canonical
from lockkit.config.places import StatePlace, state_place
from lockkit.config.settings import SETTINGS, ConfigFields, allowed_hint, meant
from lockkit.errors import ConfigError
from lockkit.facts import SCOPES, Scope
from lockkit.values.redaction import redact, redact_name

__all__ = [
    "ETC",
    "Config",
    "decide",
    "keywords",
    "keywords_layer",
    "load",
    "plugin_settings",
    "refuse",
]

_SCOPES = tuple(SCOPES)
_SHARED_FOLDER = "/var/lib/lockkit"
"""The folder that an error suggests for a store of all users of a host."""
_T = TypeVar("_T")


class Config(ConfigFields):
    """The value of every setting, and its source. Meanings: :data:`lockkit.config.settings.SETTINGS`.

    Durations are in seconds. ``url`` no longer contains the options of its query that are settings.

    Attributes:
        profile: The profile in use, or None.
        plugins: The undecoded tables of the plugins, by canonical name; see :func:`plugin_settings`.
        pools: The members of each pool, with their capacities; ``pools.<name>`` is their key in ``sources``.
        alerts: The undecoded tables ``[alerts.rules.<name>]`` and ``[alerts.channels.<name>]``, by ``rules``
            and ``channels``; ``alerts.rules.<name>.<key>`` is a key in ``sources``.
        sources: Where each value came from, by key; ``plugins.<dist>.<key>`` for those of plugins.
        files: The files that were looked for, each with a mark by which a change is noticed.
        arguments: The arguments of :func:`load`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (
            f"{key}={value}" for key, value, source in self.describe() if source != DEFAULT or key == "url"
        )
        return f"Config({', '.join(shown)})"

    def source(self, key: str) -> str:
        """The source of a value: a file's path, ``LOCKKIT_URL``, ``argument``, ``default``, ..."""
        return self.sources.get(key, DEFAULT)

    def is_set(self, key: str) -> bool:
        """Whether the setting was set anywhere. If not, a command may use a default of its own."""
        return not self.source(key).startswith(DEFAULT)

    def pool(self, name: object) -> Mapping[str, int]:
        """The members of a pool of the configuration, with their capacities.

        Raises:
            ConfigError: No file has such a pool.
        """
        members = self.pools.get(name) if isinstance(name, str) else None
        if members is None:
            there = f"there are {', '.join(sorted(self.pools))}" if self.pools else "no file has pools"
            raise ConfigError(
                f"the configuration has no pool {name!r}",
                hint=meant(name, self.pools)
                or f"{there}; write [pools.NAME] with members = [...], or give the members in code",
            )
        return members

    def describe(self) -> list[tuple[str, str, str]]:
        """Rows of key, value as in a file (secrets hidden), and source, for ``lockkit config show``."""
        # late: only ever needed to show the configuration
        from lockkit.config.as_toml import pool_as_toml, toml

        rows = [
            (setting.place, toml(setting, getattr(self, key)), self.source(key))
            for key, setting in SETTINGS.items()
        ]
        if self.profile is not None:
            rows.append(("profile", f'"{redact_name(self.profile)}"', self.source("profile")))
        for name, members in sorted(self.pools.items()):
            rows.append((f"pools.{redact_name(name)}", pool_as_toml(members), self.source(f"pools.{name}")))
        for name, table in sorted(self.alerts.get("rules", {}).items()):
            keys = sorted(f"alerts.rules.{name}.{key}" for key in table)
            rows += [(redact_name(key), "(set)", self.source(key)) for key in keys]
        for name in sorted(self.alerts.get("channels", {})):  # their keys may be secrets
            rows.append(
                (f"alerts.channels.{redact_name(name)}", "(set)", self.source(f"alerts.channels.{name}"))
            )
        keys = sorted(f"plugins.{dist}.{key}" for dist, table in self.plugins.items() for key in table)
        # A plugin's values may be secrets, and only the plugin knows which.
        return rows + [(redact_name(key), "(set)", self.source(key)) for key in keys]

    def state_place(self, *, create: bool = True) -> StatePlace:
        """The state folder of this user, created if it is missing, and why this folder was chosen.

        Args:
            create: Whether to create the folder. If False, only check whether it could be created.

        Raises:
            ConfigError: The configured folder is not an absolute path.
            BackendUnavailable: The folder cannot be used; see :func:`lockkit.config.places.state_place`.
        """
        configured = None if self.state_dir is None else (self.state_dir, self.source("state_dir"))
        environ = self.arguments.get("environ")
        return state_place(cast("Mapping[str, str] | None", environ), configured, create=create)

    def check_scope(self, reach: Scope) -> None:
        """Refuse a store that reaches less far than ``scope`` requires.

        Args:
            reach: How far the locks of the store at ``url`` reach.

        Raises:
            ConfigError: The store does not reach as far.
        """
        if self.scope is not None and _SCOPES.index(reach) < _SCOPES.index(self.scope):
            raise ConfigError(
                f"{redact(self.url)} keeps apart only {SCOPES[reach]}, but scope is {self.scope!r} "
                f"(from {self.source('scope')})",
                hint=f"{self._chosen_by()}; {self._farther(reach)}",
            )

    def check_default(self) -> None:
        """Refuse the default store if new programs would use the administrator's instead.

        Raises:
            ConfigError: The administrator's file names another store since this configuration was loaded.
        """
        etc = str(self.arguments.get("etc"))
        if self.is_set("url") or stamp(Path(etc)) == self.files.get(etc):
            return
        shared = self._for_all()
        if shared is not None and shared.url != self.url:
            raise ConfigError(
                f"{etc} names {redact(shared.url)} as the store of all programs, since this one has read it",
                hint="start this program again; see: lockkit docs all-users",
            )

    def _for_all(self) -> Config | None:
        """The configuration of everybody who names no store, if the administrator's file names one."""
        shared = self._otherwise(url=None, profile=None, config=os.devnull, environ={})
        return shared if shared is not None and shared.is_set("url") else None

    def _chosen_by(self) -> str:
        """Where the URL came from, as a sentence."""
        source = self.source("url")
        if source == ARGUMENT:
            return "the URL was given in the call, or with --url"
        return f"the URL is {'the default' if source == DEFAULT else f'from {source}'}"

    def _farther(self, reach: Scope) -> str:
        """How to reach a store as wide as ``scope``, or a smaller scope if the store is only for a try."""
        if self.scope == "fleet":
            return "use a store that hosts can share, such as redis://"
        if self.scope != "host":
            return "use sqlite:, the default"
        shared = self._for_all()
        if shared is not None and shared.url != self.url:
            source = self.source("url")
            way = {ARGUMENT: "leave the URL out", "LOCKKIT_URL": "unset LOCKKIT_URL"}.get(
                source, f"remove url from {source}"
            )
            use = f"to use {redact(shared.url)}, which {shared.source('url')} names: {way}"
        else:
            use = self._init()
        less = f"; {self._try_alone()}" if reach == "process" else ""
        return f"{use}{less}; see: lockkit docs all-users"

    def _init(self) -> str:
        """The command that makes a store of all users, and what to do then."""
        source = self.source("url")
        # The administrator's file wins only over the default.
        use = "" if source == DEFAULT else "; then unset LOCKKIT_URL"
        if source not in (DEFAULT, "LOCKKIT_URL"):
            use = f"; then use sqlite:{_SHARED_FOLDER}/host.db"
        sudo = "sudo " if os.geteuid() else ""
        return f"for a GROUP of users of this host: {sudo}lockkit host init --group GROUP{use}"

    def _try_alone(self) -> str:
        """How a program that shares nothing asks for no more than its own threads."""
        environ = cast("Mapping[str, str] | None", self.arguments.get("environ"))
        asked = self._otherwise(
            environ={**(os.environ if environ is None else environ), "LOCKKIT_SCOPE": "process"}
        )
        # A pinned scope, or one in code, wins over the variable.
        variable = "LOCKKIT_SCOPE=process, or " if asked is not None and asked.scope == "process" else ""
        return f'for a try in one program: {variable}connect(..., scope="process")'

    def _otherwise(self, **changes: object) -> Config | None:
        """The configuration with other arguments; None if a file is wrong now: the next load reports it."""
        try:
            return load(**cast("dict[str, Any]", {**self.arguments, **changes}))
        except ConfigError:
            return None

    def stale(self) -> bool:
        """Whether one of the files changed, appeared or disappeared since the configuration was loaded."""
        return any(stamp(Path(name)) != seen for name, seen in self.files.items())

    def reload(self) -> Config:
        """Load the configuration again, from the same places and keywords.

        Raises:
            ConfigError: As for :func:`load`.
        """
        return load(**cast("dict[str, Any]", dict(self.arguments)))


def load(
    url: str | None = None,
    *,
    profile: str | None = None,
    config: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    etc: str | os.PathLike[str] = ETC,
    home: str | os.PathLike[str] | None = None,
    **keywords: object,
) -> Config:
    """Read all layers, and decide which value of each setting wins.

    Args:
        url: The store's URL, as a keyword in code.
        profile: The profile to use; wins over ``LOCKKIT_PROFILE``.
        config: A file to read instead of the user's and the project's; wins over ``LOCKKIT_CONFIG``.
        environ: The environment; None for that of this process.
        cwd: The folder in which the search for the project's file begins; None for the working directory.
        etc: The administrator's file.
        home: The home folder; None for HOME, or without HOME that of the passwd entry.
        keywords: Settings as keywords in code, durations in seconds. None means not set.

    Raises:
        ConfigError: A key or value is not allowed. The message names file, variable or keyword, and key.
    """
    arguments = {
            **keywords, "url": url, "profile": profile, "config": config,
            "environ": environ, "cwd": cwd, "etc": etc, "home": home,
    }  # fmt: skip
    found = configfiles.look(environ, cwd, etc, home, config)
    layers.warn(found.environment)
    code = keywords_layer({"url": url, **keywords})
    refuse([problem for layer in (*found.layers(), code) for problem in layer.problems])
    decided, problems = decide(found, profile, code, arguments)
    refuse(problems)
    assert decided is not None
    return decided


def keywords(settings: Mapping[str, object]) -> dict[str, Any]:
    """Settings given to ``connect``, as keywords for :func:`load`. None for a limit means no limit.

    Raises:
        ConfigError: A key is no setting.
    """
    for key in settings:
        if key not in SETTINGS:
            raise _unknown(key, settings)
    return {
        key: SETTINGS[key].endless if value is None and SETTINGS[key].kind == "limit" else value
        for key, value in settings.items()
    }


def plugin_settings(config: Config, dist: str, struct: type[_T]) -> _T:
    """A plugin's own table ``[plugins.<dist>]``, decoded into its msgspec struct.

    Make the struct ``forbid_unknown_fields=True``, so that a typo is an error.

    Raises:
        ConfigError: The table does not fit the struct. The message names file, key, and what is allowed.
    """
    import msgspec

    name = canonical(dist)
    table = config.plugins.get(name, {})
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:
        told, _, place = str(error).partition(" - at `$")
        unknown = re.search(r"unknown field `(.*)`", told)
        key = ".".join(filter(None, (place.rstrip("`").strip("."), unknown[1] if unknown else "")))
        is_struct = hasattr(struct, "__struct_fields__")  # not a generic alias, such as dict[str, int]
        fields = msgspec.structs.fields(cast("type[msgspec.Struct]", struct)) if is_struct else ()
        allowed = [each.encode_name for each in fields]
        first = re.split(r"[.[]", key)[0]
        file = config.sources.get(f"plugins.{name}", "configuration")
        where = config.sources.get(f"plugins.{name}.{first}", file)
        place = f"{where}: [plugins.{name}]{' ' + key if key else ''}"
        if name not in config.plugins:
            needed = [each.encode_name for each in fields if each.required]
            raise ConfigError(
                f"no configuration file has a table [plugins.{name}]: {told}",
                hint=_table_to_write(config, name, needed, allowed),
            ) from None
        hint = allowed_hint(key, allowed) if allowed else None
        raise ConfigError(f"{place}: {told}", hint=hint) from None


def _table_to_write(config: Config, name: str, needed: Iterable[str], allowed: Iterable[str]) -> str:
    """A hint that names the file and the lines by which a plugin gets the table that it needs."""
    everybodys, *own = config.files or [str(ETC)]
    file = f"{own[0]}, or for all users to {everybodys}" if own else everybodys
    lines = ", ".join((f"[plugins.{name}]", *(f"{key} = ..." for key in needed)))
    return (
        f"add to {file}, these lines: {lines} (allowed: {', '.join(allowed)}); "
        f'or leave the plugin out, by a line above all tables: disable_plugins = ["{name}"]'
    )


# -- deciding -----------------------------------------------------------------------------------------------


def keywords_layer(keywords: Mapping[str, object]) -> Layer:
    """The layer of settings that were given as keywords."""
    layer = Layer(ARGUMENT)
    for key, value in keywords.items():
        if key not in SETTINGS:
            layer.problems.append(_unknown(key, keywords))
        elif value is not None:
            layer.keep(SETTINGS[key], value)
    return layer


def _unknown(key: str, given: Mapping[str, object]) -> ConfigError:
    """The error for a keyword that is no setting. ``given`` are all keywords."""
    from lockkit.values.habit_words import CONNECT, timeouts  # late: only ever needed for an error

    hint = CONNECT.get(key) or meant(key, SETTINGS) or f"allowed: {', '.join(SETTINGS)}"
    hint += timeouts([key], given.get("timeout"))
    return ConfigError(f"{ARGUMENT}: unknown setting {key}", hint=hint)


def decide(
    found: Found, profile: str | None, code: Layer, arguments: Mapping[str, object]
) -> tuple[Config | None, list[ConfigError]]:
    """Combine the layers.

    Returns:
        The resulting configuration, or None if there is none, and all problems of the combination.
    """
    chosen = found.chosen(profile)
    if chosen and chosen not in found.profiles():
        known = sorted(map(redact_name, found.profiles()))
        there = f"there are {', '.join(known)}" if known else "no file has profiles"
        told = f"there is no profile {redact_name(chosen)!r}"
        return None, [ConfigError(told, hint=meant(chosen, known) or there)]
    values, sources, problems = precedence.settings(found, profile, code)
    if problems:
        return None, problems
    values = {key: setting.default for key, setting in SETTINGS.items()} | values
    problems = misfits(values, sources)
    if chosen:
        sources["profile"] = ARGUMENT if profile else "LOCKKIT_PROFILE"
    named = precedence.named(found, sources)
    decided = Config(
        **cast("dict[str, Any]", values),
        profile=chosen,
        plugins=named["plugins"],
        pools=named["pools"],
        alerts={kind: tables for kind in ALERT_TABLES if (tables := named[f"alerts.{kind}"])},
        sources=sources,
        files=found.stamps,
        arguments=arguments,
    )
    return decided, problems


def refuse(problems: Sequence[ConfigError]) -> None:
    """Raise the first of some problems, with their number; do nothing if there are none.

    Raises:
        ConfigError: There is a problem.
    """
    if problems:
        rest = len(problems) - 1
        more = (
            f" (and {rest} more {'problem' if rest == 1 else 'problems'}: lockkit config check)"
            if rest
            else ""
        )
        raise ConfigError(f"{problems[0].message}{more}", hint=problems[0].hint)
