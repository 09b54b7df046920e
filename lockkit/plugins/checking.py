"""What ``lockkit config check`` and ``doctor`` say of the configuration.

What it says by itself, and whether the stores and plugins that are installed can do it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from lockkit import config
from lockkit.config import ETC, Config
from lockkit.durations import exact, limits
from lockkit.errors import ConfigError, LockkitError, PluginError
from lockkit.facts import Finding
from lockkit.hooks import PROJECT
from lockkit.layers import canonical
from lockkit.plugins.discovery import Installed, installed
from lockkit.plugins.manager import PluginManager
from lockkit.plugins.stores import SCHEMES
from lockkit.settings import meant
from lockkit.spi import Refused, Unknown

__all__ = ["check_files"]


def check_files(
    *,
    environ: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    etc: str | os.PathLike[str] = ETC,
    home: str | os.PathLike[str] | None = None,
    config_file: str | os.PathLike[str] | None = None,
    discover: Callable[[], Sequence[Installed]] = installed,
) -> list[Finding]:
    """Everything that :func:`lockkit.config.check_files` finds, and what cannot work with what is installed.

    A store that is not there, a URL and a ttl that it would refuse, and a client library that is missing are errors: no lock can be taken. Tables and switches for
    plugins that are not there are warnings: one file may serve several environments.

    Args:
        environ: This and the next four are those of :func:`lockkit.config.load`.
        cwd: Where the search for the project's file begins.
        etc: The administrator's file.
        home: The home folder.
        config_file: A file in place of the user's and the project's.
        discover: Where the entry points come from.
    """
    findings = config.check_files(environ=environ, cwd=cwd, etc=etc, home=home, config=config_file)
    if any(finding.severity == "error" for finding in findings):
        return findings
    loaded = config.load(environ=environ, cwd=cwd, etc=etc, home=home, config=config_file)
    entries = discover()
    findings += _store(loaded, discover)
    findings += _tables(loaded, entries)
    findings += _switches(loaded, entries)
    return findings


def _store(loaded: Config, discover: Callable[[], Sequence[Installed]]) -> Iterator[Finding]:
    plugins = PluginManager(disabled=loaded.disable_plugins, discover=discover)
    try:
        spec = plugins.backend(loaded.url)
    except (ConfigError, PluginError) as error:
        yield _of_the_url(loaded, error)
        return
    try:
        plugins.check(loaded.url)
    except (ConfigError, PluginError) as error:
        yield _of_the_url(loaded, error)
    except (Refused, Unknown) as trouble:
        yield _of_the_url(loaded, trouble.error)
    can = spec.capabilities
    if not can.min_ttl <= loaded.ttl <= can.max_ttl:
        told = f"ttl must be {limits(can.min_ttl, can.max_ttl)} on {spec.name}, not {exact(loaded.ttl)}"
        more = f"; {can.ttl_limits}" if can.ttl_limits else ""
        yield Finding("config", "error", told, f"ttl is from {loaded.source('ttl')}{more}")


def _of_the_url(loaded: Config, error: LockkitError) -> Finding:
    hint = f"url is from {loaded.source('url')}" + (f"; {error.hint}" if error.hint else "")
    return Finding("config", "error", error.message, hint)


def _tables(loaded: Config, entries: Sequence[Installed]) -> Iterator[Finding]:
    offering = {canonical(entry.dist) for entry in entries} | {PROJECT}
    for dist in loaded.plugins:
        if dist in offering or _is_installed(dist):
            continue
        origins = sorted(
            {where for key, where in loaded.sources.items() if key.startswith(f"plugins.{dist}.")}
        )
        where = f" (from {', '.join(origins)})" if origins else ""
        told = f"[plugins.{dist}]{where} is for a distribution that is not installed"
        yield Finding("config", "warning", told, meant(dist, offering) or f"pip install {dist}, or remove it")


def _is_installed(dist: str) -> bool:
    # A plugin that is given in code has a distribution too, and no entry point.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(dist)
    except PackageNotFoundError:
        return False
    return True


def _switches(loaded: Config, entries: Sequence[Installed]) -> Iterator[Finding]:
    names = {canonical(name) for entry in entries for name in (entry.name, entry.dist)}
    known = names | {store.name for store in SCHEMES.values()} | {"all"}
    for name in loaded.disable_plugins:
        if canonical(name) not in known:
            told = f"disable_plugins (from {loaded.source('disable_plugins')}): there is no plugin {name!r}"
            yield Finding(
                "config", "warning", told, meant(name, known) or "lockkit plugins lists what there is"
            )
