"""Configuration files: where they are, which to trust, and how each becomes a layer of settings."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from lockkit.config.layers import Found, Layer, canonical, environment, warn_once
from lockkit.config.places import barred, home_dir
from lockkit.config.settings import TABLES, Value, allowed_hint, shape
from lockkit.errors import ConfigError
from lockkit.lib.forks import IMPORTS
from lockkit.notes.members import weights
from lockkit.values.redaction import redact_name

__all__ = ["ALERT_TABLES", "ETC", "file", "look", "stamp"]

_Path: TypeAlias = str | os.PathLike[str]
ETC = Path("/etc/lockkit/config.toml")
"""The administrator's file, the only file in which ``pinned = true`` is allowed."""
ALERT_TABLES = ("rules", "channels")
"""The tables in ``[alerts]`` that contain tables; :mod:`lockkit.alerts` checks them."""
Table: TypeAlias = Mapping[str, object]
"""A table of a file, as TOML gives it."""


def look(
    environ: Mapping[str, str] | None = None,
    cwd: _Path | None = None,
    etc: _Path = ETC,
    home: _Path | None = None,
    config: _Path | None = None,
) -> Found:
    """Read every layer except the URL's query. The arguments are those of :func:`lockkit.config.load`."""
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


def file(path: Path, *, needed: bool = False, pins: bool = False) -> Layer | None:
    """Read one file, or ``[tool.lockkit]`` of a ``pyproject.toml``; None if there is none.

    All errors are collected in ``problems``. A file in another user's folder that this user may not search
    counts as absent, with a warning (a daemon with ``HOME=/root``), unless it is the administrator's file,
    which may pin settings, or was requested.

    With ``needed`` a missing file is an error; with ``pins`` the file may contain ``pinned``.
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
            warn_once(
                f"{path} is ignored, because this user may not look into {folder}; "
                "check whether HOME is right"
            )
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
    with IMPORTS:
        import tomllib  # only where there is a file: 10 ms

    try:
        table: object = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        layer.problem(f"not valid TOML: {error}", _misspelt(text, str(error)))
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


def _misspelt(text: bytes, error: str) -> str | None:
    """A hint about the line that a parser's error names. Its value is hidden: it may be a secret."""
    at = re.search(r"at line (\d+)", error)
    lines = text.decode(errors="replace").rstrip().splitlines()
    number = int(at[1]) if at else len(lines)
    found = re.match(r"\s*([\w.-]+)\s*([=:])\s*(\S?)", "".join(lines[number - 1 : number]))
    if found is None:
        return None
    key, sign, begin = found.groups()
    if sign == ":":
        return f"write {key} = ..., not {key}: ..."
    if not begin:
        return f"the value of {key} is missing"
    if error.startswith("Invalid value") and begin not in "\"'[{":
        return f'a text needs quotation marks: {key} = "..."'
    return f"see the line {key} = ..."


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
        layer.problem("pinned is only allowed in the administrator's file", "remove it from this file")
    elif not isinstance(pinned, bool):
        layer.problem(f"pinned must be true or false, not {shape(pinned)}")
    else:
        layer.pinned = pinned
    for name, profile in _tables(layer, "profiles", rest.pop("profiles", {})):
        layer.profiles[name] = _values(layer, profile, f"profiles.{redact_name(name)}.")
    alerts = rest.get("alerts")
    if isinstance(alerts, dict):
        alerts = rest["alerts"] = dict(alerts)
    for kind, named in layer.named.items():
        above, _, key = kind.rpartition(".")
        inside = alerts if above else rest
        for name, inner in _tables(layer, kind, inside.pop(key, {}) if isinstance(inside, dict) else {}):
            read = _members(layer, name, inner) if kind == "pools" else inner
            if read is not None:
                named[canonical(name) if kind == "plugins" else name] = read
    beside = ("profiles", "plugins", "pools", *(("pinned",) if pins else ()))
    layer.values.update(_values(layer, rest, "", beside))


def _tables(layer: Layer, key: str, value: object) -> Iterator[tuple[str, Table]]:
    if not isinstance(value, dict):
        layer.problem(f"{key} must contain tables, not {shape(value)}", f"write [{key}.NAME]")
        return
    for name, table in value.items():
        if isinstance(table, dict):
            yield name, table
        else:
            place = f"{key}.{redact_name(name)}"
            layer.problem(f"{place} must be a table, not {shape(table)}", f"write [{place}]")


def _members(layer: Layer, name: str, table: Table) -> dict[str, int] | None:
    """The members of a pool with their capacities; None, with a problem recorded, if one is wrong."""
    place = f"pools.{redact_name(name)}"
    unknown = [key for key in table if key != "members"]
    if unknown:
        layer.problem(
            f"unknown key {place}.{redact_name(unknown[0])}", allowed_hint(unknown[0], ("members",))
        )
        return None
    try:
        return dict(weights(table.get("members"), name))
    except ConfigError as error:
        layer.problem(
            f"{place}: {error.message}",
            error.hint or 'write members = ["0", "1"], or members = {0 = 80, 1 = 80}',
        )
        return None


def _values(layer: Layer, table: Table, prefix: str, beside: tuple[str, ...] = ()) -> dict[str, Value]:
    """The settings of a file or profile. ``beside`` are other keys of the file that its hints name."""
    values: dict[str, Value] = {}
    rest = dict(table)
    inners = [(name, rest.pop(name, {})) for name in TABLES if name is not None]
    for name, inner in (*inners, (None, rest)):
        settings = TABLES[name]
        place = prefix if name is None else f"{prefix}{name}."
        allowed = (*settings, *(ALERT_TABLES if place == "alerts." else ()))
        if name is None:
            allowed += (*filter(None, TABLES), *beside)
        given = {"enabled": inner} if isinstance(inner, bool) and "enabled" in settings else inner
        if not isinstance(given, dict):
            layer.problem(f"{prefix}{name} must be a table, not {shape(inner)}", f"write [{prefix}{name}]")
            continue
        for key, value in given.items():
            if key in settings:
                layer.keep(settings[key], value, prefix=prefix, into=values)
            else:
                layer.problem(f"unknown key {place}{redact_name(key)}", allowed_hint(key, allowed))
    return values


def _project(cwd: Path, home: Path | None) -> tuple[Path, Layer | None] | None:
    """The nearest ``lockkit.toml``, or ``pyproject.toml`` with a ``[tool.lockkit]``, and its layer.

    The search goes upwards from a folder to the home folder or the root. In a folder that everybody may write
    to, a symbolic link and a file of anybody but this user or root are ignored with a warning: otherwise
    anybody could redirect this user's locks from /tmp. A file is opened once: its name may lead elsewhere
    later.
    """
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

    The opened folder and file are checked, not their names: a link could change between check and reading.

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
            # Unlike os.fdopen, this closes a folder of that name.
            opened = open(name, "rb", opener=lambda path, _: os.open(path, flags, dir_fd=inside))  # noqa: SIM115
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
            with opened:
                seen = os.fstat(opened.fileno())
                if not stat.S_ISREG(seen.st_mode):
                    return None
                mine = not anybody or seen.st_uid in (0, os.getuid())
                if mine:
                    return opened.read()
    finally:
        os.close(inside)
    warn_once(f"{folder / name} is ignored: everybody may write to its folder, and the file is not yours")
    return None
