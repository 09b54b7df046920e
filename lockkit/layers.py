"""The sources of settings: files, the environment and the URL's query. Each becomes a :class:`Layer`.

:mod:`lockkit.config` decides which layer wins.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from lockkit.errors import ConfigError
from lockkit.places import barred, home_dir
from lockkit.printable import printable
from lockkit.redaction import redact_name
from lockkit.settings import SETTINGS, Setting, Value, meant, read, shape

__all__ = [
    "ARGUMENT",
    "ENVIRONMENT",
    "Found",
    "Layer",
    "Table",
    "canonical",
    "environment",
    "file",
    "look",
    "project_file",
    "split_query",
    "stamp",
    "warn",
]

ARGUMENT = "argument"
"""The source of settings given by keyword."""

_Path: TypeAlias = str | os.PathLike[str]
_log = logging.getLogger("lockkit.config")

Table = Mapping[str, object]
"""A table of a file, as TOML gives it."""

ENVIRONMENT: Mapping[str, str] = {
    "LOCKKIT_PROFILE": "The profile to use.",
    "LOCKKIT_CONFIG": "A file to read in place of the user's and the project's.",
    **{setting.env: setting.meaning for setting in SETTINGS.values() if setting.env},
    "LOCKKIT_SERVE_TOKEN_FILE": "Reserved for the server, which is planned: the file with its bearer token.",
    "LOCKKIT_LEASE_NAME": "Set by `lockkit run` for its command: the name that is locked.",
    "LOCKKIT_LEASE_TOKEN": "Set by `lockkit run` for its command: the claim's token, a secret.",
    "LOCKKIT_LEASE_FENCE": "Set by `lockkit run` for its command: the fencing token.",
    "LOCKKIT_HELD": "Set by `lockkit run` for its command: all that is held around it, as JSON.",
}
"""Every variable that lockkit reads or sets, with its meaning: a closed list. An empty variable counts as unset."""

_PREFIX = "LOCKKIT_"
# Kubernetes describes every Service to every pod: for one called lockkit, or lockkit-redis, there are LOCKKIT_SERVICE_HOST,
# LOCKKIT_PORT_6379_TCP_ADDR, LOCKKIT_REDIS_PORT, ... They are no settings and no reason to warn.
_INJECTED = r"LOCKKIT_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)|LOCKKIT_HOST"
_warned: set[str] = set()


@dataclass(eq=False)
class Layer:
    """The settings of one place.

    Attributes:
        source: The place, as people know it: a file's path, ``LOCKKIT_*``, ``argument``.
        values: The settings, read and checked.
        sources: The exact source of a key, if ``source`` is not exact enough.
        profiles: The settings of each ``[profiles.x]``.
        plugins: The tables ``[plugins.<dist>]`` by canonical name, raw.
        pinned: Whether the layer wins over everything but keywords in code.
        problems: The errors of this place.
        warnings: Probable errors, which are ignored.
    """

    source: str
    values: dict[str, Value] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, dict[str, Value]] = field(default_factory=dict)
    plugins: dict[str, dict[str, object]] = field(default_factory=dict)
    pinned: bool = False
    problems: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)

    def origin(self, key: str) -> str:
        """The source of a setting of this layer."""
        return self.sources.get(key, self.source)

    def problem(self, message: str, hint: str | None = None) -> None:
        """Record an error of this place."""
        self.problems.append(ConfigError(f"{self.source}: {message}", hint=hint))

    def keep(
        self,
        setting: Setting,
        value: object,
        *,
        prefix: str = "",
        text: bool = False,
        into: dict[str, Value] | None = None,
    ) -> None:
        """Read a setting into ``values`` (or another dict), or record what is wrong with it."""
        try:
            (self.values if into is None else into)[setting.key] = read(setting, value, text=text)
        except ConfigError as error:
            self.problem(f"{prefix}{error.message}", error.hint)


class Found(NamedTuple):
    """The layers that were found, with marks that tell whether their files have changed."""

    environ: Mapping[str, str]
    etc: Layer | None
    user: Layer | None
    project: Layer | None
    environment: Layer
    stamps: Mapping[str, object]

    def files(self) -> list[Layer]:
        """The layers that are files, lowest first."""
        return [layer for layer in (self.etc, self.user, self.project) if layer is not None]

    def layers(self) -> list[Layer]:
        """All layers, lowest first."""
        return [*self.files(), self.environment]

    def profiles(self) -> set[str]:
        """The names of all profiles."""
        return {name for layer in self.files() for name in layer.profiles}

    def chosen(self, profile: str | None) -> str | None:
        """The profile to use, given the ``profile`` that was chosen by keyword."""
        return profile or self.environ.get("LOCKKIT_PROFILE") or None


def look(
    environ: Mapping[str, str] | None,
    cwd: _Path | None,
    etc: _Path,
    home: _Path | None,
    config: _Path | None,
) -> Found:
    """Read every layer except the URL's query; the arguments are those of :func:`lockkit.config.load`."""
    environ = os.environ if environ is None else environ
    here = _working_folder() if cwd is None else Path(cwd)
    house = home_dir(environ) if home is None else Path(home)
    named = config or environ.get("LOCKKIT_CONFIG")
    user = project = None
    looked = [Path(etc)]
    if named:
        looked.append(here / named if here else Path(named))
        user = file(looked[-1], needed=True)
    else:
        base = environ.get("XDG_CONFIG_HOME", "")
        folder = Path(base) if base.startswith("/") else house / ".config" if house else None
        if folder is not None:
            looked.append(folder / "lockkit" / "config.toml")
            user = file(looked[-1])
        found = _project(here, house) if here else None
        if found is not None and found[0] not in looked:
            looked.append(found[0])
            project = found[1]
    stamps = {str(path): stamp(path) for path in looked}
    return Found(environ, file(Path(etc), pins=True), user, project, environment(environ), stamps)


def _working_folder() -> Path | None:
    try:
        return Path(os.getcwd())  # noqa: PTH109 (half the price of Path.cwd)
    except OSError:  # the working folder was removed, so there is no project file either
        return None


def stamp(path: Path) -> object:
    """A mark that changes when the file does."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


# -- files ----------------------------------------------------------------------------------------------------


def file(path: Path, *, needed: bool = False, pins: bool = False) -> Layer | None:
    """Read one file, or ``[tool.lockkit]`` of a ``pyproject.toml``; None if there is none.

    All errors are collected in ``problems``. A file in another user's folder that this user may not search counts as absent,
    with a warning (a daemon with ``HOME=/root``). That does not apply to the administrator's file, which may pin settings, or to
    a file that was requested.

    Args:
        path: The file.
        needed: Whether a missing file is an error.
        pins: Whether ``pinned`` is allowed in the file.
    """
    layer = Layer(str(path))
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not needed:
            return None
        layer.problem(f"cannot be read: {error.strerror}", "see LOCKKIT_CONFIG")
        return layer
    except OSError as error:
        folder = None if needed or pins else _strangers(path)
        if folder is not None:
            _warn(f"{path} is taken as absent: this user may not look into {folder}; is HOME right?")
            return None
        layer.problem(f"cannot be read: {error.strerror}", "let this user read it, or remove it")
        return layer
    return _parsed(layer, path, text, needed=needed, pins=pins)


def _parsed(
    layer: Layer, path: Path, text: bytes, *, needed: bool = False, pins: bool = False
) -> Layer | None:
    embedded = path.name == "pyproject.toml"
    if embedded and not needed and b"lockkit" not in text:
        return None  # most projects have no such table, and importing the parser takes time
    import tomllib  # only where there is a file: 10 ms

    try:
        table: object = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        layer.problem(f"not valid TOML: {error}")
        return layer
    if embedded:
        tools = table.get("tool") if isinstance(table, dict) else None
        if not isinstance(tools, dict) or "lockkit" not in tools:
            if not needed:
                return None
            layer.problem("there is no table [tool.lockkit]")
            return layer
        table = tools["lockkit"]
    if isinstance(table, dict):
        _take(layer, table, pins=pins)
    else:
        layer.problem("tool.lockkit must be a table", "write [tool.lockkit]")
    return layer


def _strangers(path: Path) -> Path | None:
    """The folder that this user may not search on the way to a path, if it belongs to another user."""
    folder = barred(path)
    try:
        return folder if folder is not None and folder.stat().st_uid != os.geteuid() else None
    except OSError:
        return None


def _take(layer: Layer, table: Table, *, pins: bool) -> None:
    rest = dict(table)
    pinned = rest.pop("pinned", False)
    if not pins and "pinned" in table:
        layer.problem("pinned is for the administrator's file only", "remove it here")
    elif not isinstance(pinned, bool):
        layer.problem(f"pinned must be true or false, not {shape(pinned)}")
    else:
        layer.pinned = pinned
    for name, profile in _tables(layer, "profiles", rest.pop("profiles", {})):
        layer.profiles[name] = _values(layer, profile, f"profiles.{redact_name(name)}.", ())
    for dist, settings in _tables(layer, "plugins", rest.pop("plugins", {})):
        layer.plugins[canonical(dist)] = dict(settings)
    layer.values.update(_values(layer, rest, "", ("profiles", "plugins", *(("pinned",) if pins else ()))))


def _tables(layer: Layer, key: str, value: object) -> Iterator[tuple[str, Table]]:
    if not isinstance(value, dict):
        layer.problem(f"{key} must hold tables, not {shape(value)}", f"write [{key}.NAME]")
        return
    for name, table in value.items():
        if isinstance(table, dict):
            yield name, table
        else:
            place = f"{key}.{redact_name(name)}"
            layer.problem(f"{place} must be a table, not {shape(table)}", f"write [{place}]")


def _values(layer: Layer, table: Table, prefix: str, besides: tuple[str, ...]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, value in table.items():
        setting = SETTINGS.get(key)
        if setting is None:
            allowed = (*SETTINGS, *besides)
            guess = meant(key, allowed)
            layer.problem(
                f"unknown key {prefix}{redact_name(key)}",
                f"{guess or ''} allowed: {', '.join(allowed)}".strip(),
            )
            continue
        layer.keep(setting, value, prefix=prefix, into=values)
    return values


def canonical(dist: str) -> str:
    """The normalized name of a distribution: lower case, ``-`` for runs of ``-_.``."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def project_file(cwd: Path, home: Path | None) -> Path | None:
    """The nearest ``lockkit.toml``, or ``pyproject.toml`` with a ``[tool.lockkit]``, from a folder upwards.

    The search ends with the home folder or the root. A file in a folder that everybody may write to is ignored with a warning,
    unless it belongs to this user or root: otherwise anybody could redirect this user's locks from /tmp. A link there is ignored
    as well, because its owner says nothing about its target.
    """
    found = _project(cwd, home)
    return found[0] if found else None


def _project(cwd: Path, home: Path | None) -> tuple[Path, Layer | None] | None:
    """The file of :func:`project_file` and its layer, from a single opening: the name may lead elsewhere the next time."""
    last = Path(os.path.realpath(home)) if home else None
    for folder in (cwd, *cwd.parents):
        for name in ("lockkit.toml", "pyproject.toml"):
            path = folder / name
            try:
                text = _trusted(folder, name)
            except PermissionError:
                if name == "lockkit.toml":
                    return path, file(path)  # which says why it cannot be read
                continue
            except OSError:
                continue
            if text is None or (name == "pyproject.toml" and b"lockkit" not in text):
                continue
            layer = _parsed(Layer(str(path)), path, text)
            if layer is not None:
                return path, layer
        if folder in (home, last):
            break
    return None


def _trusted(folder: Path, name: str) -> bytes | None:
    """The content of a file; None if it is not a regular file, or if another user may have put it there.

    The checks look at the opened folder and file, not at their names, because a link could be changed between a check of its
    name and the reading.

    Raises:
        PermissionError: The file is there, and this user may not read it.
        OSError: The file is not there.
    """
    inside = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        anybody = bool(os.fstat(inside).st_mode & stat.S_IWOTH)
        # O_NONBLOCK: opening a FIFO would otherwise wait for its writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (os.O_NOFOLLOW if anybody else 0)
        try:
            descriptor = os.open(name, flags, dir_fd=inside)
        except PermissionError as error:
            seen = os.stat(name, dir_fd=inside, follow_symlinks=not anybody)
            if not anybody:
                if stat.S_ISREG(seen.st_mode):
                    raise
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            mine = False
        except OSError as error:
            if error.errno != errno.ELOOP or not anybody:
                raise
            mine = False
        else:
            with os.fdopen(descriptor, "rb") as opened:
                seen = os.fstat(descriptor)
                if not stat.S_ISREG(seen.st_mode):
                    return None
                mine = not anybody or seen.st_uid in (0, os.getuid())
                if mine:
                    return opened.read()
    finally:
        os.close(inside)
    _warn(f"{folder / name} is passed over: everybody may write to its folder, and it is not yours")
    return None


# -- environment and URL --------------------------------------------------------------------------------------


def environment(environ: Mapping[str, str]) -> Layer:
    """The settings of the ``LOCKKIT_*`` variables. A variable that is not on the list is a warning, not an error."""
    layer = Layer("environment")
    for setting in SETTINGS.values():
        text = environ.get(setting.env, "") if setting.env else ""
        if setting.env and text:
            layer.sources[setting.key] = setting.env
            try:
                layer.values[setting.key] = read(setting, text, text=True)
            except ConfigError as error:
                layer.problems.append(ConfigError(f"{setting.env}: {error.message}", hint=error.hint))
    for name in environ:
        if name.startswith(_PREFIX) and name not in ENVIRONMENT and not re.fullmatch(_INJECTED, name):
            guess = meant(name, ENVIRONMENT, prefix=_PREFIX)
            told = f"{name} is not a variable that lockkit knows; it is ignored"
            layer.warnings.append(ConfigError(told, hint=guess))
    return layer


def split_query(url: str, source: str) -> tuple[str, Layer]:
    """Take lockkit's settings out of a URL's query; the store reads the remaining options."""
    from urllib.parse import unquote_plus

    layer = Layer(f"query of the URL from {source}")
    place, mark, query = url.partition("?")
    kept: list[str] = []
    for option in query.split("&") if mark else ():
        key, equals, value = option.partition("=")
        setting = SETTINGS.get(key)
        if setting is None or key == "url":
            kept.append(option)
        elif key in layer.values:
            layer.problem(f"{key} is given twice")
        elif not equals:
            layer.problem(f"{key} has no value", f"{key}=...")
        else:
            layer.keep(setting, unquote_plus(value), text=True)
    return place + ("?" + "&".join(kept) if kept else ""), layer


def warn(layer: Layer, *, quietly: bool = False) -> None:
    """Log the warnings of a layer, each once a process; with ``quietly`` none, because they are shown in another way."""
    if quietly:
        _warned.update(map(str, layer.warnings))
    for warning in layer.warnings:
        _warn(str(warning))


def _warn(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning("%s", printable(message))
