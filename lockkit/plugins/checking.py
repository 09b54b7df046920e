"""The checks of ``lockkit config check`` and ``doctor``: configuration, stores and plugins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module

from lockkit.config import configfiles, layers
from lockkit.config.config import ETC, Config, decide, keywords_layer
from lockkit.config.layers import ARGUMENT, Layer, canonical
from lockkit.config.settings import meant
from lockkit.config.suggesting import quoted
from lockkit.errors import BackendUnavailable, ConfigError, LockkitError, PluginError
from lockkit.facts import Finding, Severity
from lockkit.hooks import PROJECT
from lockkit.plugins.discovery import Installed, installed
from lockkit.plugins.manager import PluginManager
from lockkit.plugins.providers import SHIPPED
from lockkit.plugins.stores import SCHEMES
from lockkit.store.spi import Refused, Unknown
from lockkit.store.ttls import fitted, misfit, refused
from lockkit.values.redaction import redact_name

__all__ = ["check_files"]


def check_files(
    url: str | None = None,
    *,
    profile: str | None = None,
    namespace: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    etc: str | os.PathLike[str] = ETC,
    home: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    discover: Callable[[], Sequence[Installed]] = installed,
    elsewhere: Severity = "error",
) -> list[Finding]:
    """Check every file, variable and profile, and report all problems instead of the first one.

    Each file and variable is checked by itself. If all can be read, their combination is checked: the one
    that :func:`lockkit.config.load` would give with these arguments, and that of each other profile.

    Errors, as no lock could be taken: a store that is not installed, a URL that it would refuse, or with
    ``strict`` a ttl, a scope out of its reach, an unusable state folder, a missing client library, a table
    that its plugin refuses, a wrong rule or channel of alerts, a channel with an unreadable secret or unknown
    URL. Warnings: a ttl that the store replaces; settings for missing plugins; skipped plugins; and for an
    unused profile (one file may serve several environments) a store, library or folder that only this machine
    lacks. Opens and creates nothing.

    Args:
        url: The store's URL. This and the next six are those of :func:`lockkit.config.load`.
        profile: The profile to use.
        namespace: The namespace, as a keyword in code.
        environ: The environment.
        cwd: The folder where the search for the project's file begins.
        etc: The administrator's file.
        home: The home folder.
        config: A file to read instead of the user's and the project's.
        discover: The source of the entry points.
        elsewhere: The severity if a profile that is not in use cannot work on any machine.
    """
    found = configfiles.look(environ, cwd, etc, home, config)
    layers.warn(found.environment, quietly=True)
    code = keywords_layer({"url": url, "namespace": namespace})
    findings = [finding for layer in found.files() for finding in _layer(layer, file=True)]
    findings += [*_layer(found.environment, file=False), *map(_error, code.problems)]
    if any(finding.severity == "error" for finding in findings):
        return findings
    places = {"environ": environ, "cwd": cwd, "etc": etc, "home": home, "config": config}
    arguments = places | {"url": url, "profile": profile, "namespace": namespace}
    in_use, problems = decide(found, profile, code, arguments)
    findings += dict.fromkeys(map(_error, problems))

    def add(more: Iterable[Finding]) -> None:
        known = {finding[2:] for finding in findings}
        findings.extend(finding for finding in more if finding[2:] not in known)

    others: list[Config] = []
    for name in sorted(found.profiles() - {found.chosen(profile)}):
        other, problems = decide(found, name, Layer(ARGUMENT), places | {"profile": name})
        others += [other] if other else []
        add(_error(problem)._replace(severity=elsewhere) for problem in problems)
    entries = discover()
    if in_use is not None:
        findings += _judged(in_use, entries)
    for other in others:
        add(_judged(other, entries, elsewhere, "warning"))
    return findings


def _layer(layer: Layer, *, file: bool) -> Iterator[Finding]:
    """The findings about one file or the environment by itself."""
    yield from map(_error, layer.problems)
    for warning in layer.warnings:
        yield _error(warning)._replace(severity="warning")
    if not layer.problems and (file or layer.values):
        pinned = ", pinned" if layer.pinned else ""
        tables: dict[str, Mapping[str, object]] = {"profiles": layer.profiles, **layer.named}
        named = [f"[{kind}.{redact_name(name)}]" for kind, names in tables.items() for name in names]
        told = ", ".join([*layer.values, *named]) or "no settings"
        yield Finding("config", "ok", f"{layer.source} is read{pinned}: {told}")


def _error(problem: ConfigError) -> Finding:
    return Finding("config", "error", problem.message, problem.hint or "")


def _judged(
    loaded: Config, entries: Sequence[Installed], wrong: Severity = "error", lacking: Severity = "error"
) -> Iterator[Finding]:
    """Find the problems of one configuration.

    Args:
        loaded: The configuration.
        entries: The installed plugins.
        wrong: The severity of a problem that exists on every machine.
        lacking: The severity of something that only this machine lacks.
    """
    plugins = PluginManager(disabled=loaded.disable_plugins, discover=lambda: entries)
    for finding in (*_store(loaded, lacking, plugins), *map(_error, plugins.misfits(loaded))):
        yield finding._replace(severity=wrong) if finding.severity == "error" else finding
    for info in plugins.skipped():
        yield Finding("config", "warning", f"plugin {info.name}: {info.error}", "see: lockkit plugins")
    yield from _tables(loaded, entries, plugins)
    yield from _switches(loaded, entries)
    yield from _alerts(loaded, wrong)


def _alerts(loaded: Config, wrong: Severity) -> Iterator[Finding]:
    if not loaded.alerts:
        return
    # By name, because alerts are on a higher floor.
    problems: Callable[[Config], Sequence[ConfigError]] = import_module("lockkit.alerts.in_force").problems
    for error in problems(loaded):
        yield _error(error)._replace(severity=wrong)


def _store(loaded: Config, lacking: Severity, plugins: PluginManager) -> Iterator[Finding]:
    try:
        plugins.distribution(loaded.url)
    except (ConfigError, PluginError) as error:
        yield _of("url", loaded, error, lacking)
        return
    try:
        spec = plugins.backend(loaded.url)
    except (ConfigError, PluginError) as error:
        yield _of("url", loaded, error)
        return
    can = spec.capabilities
    try:
        plugins.check(loaded.url)
    except (ConfigError, PluginError) as error:
        yield _of("url", loaded, error, lacking if isinstance(error.__cause__, ImportError) else "error")
    except (Refused, Unknown) as trouble:
        yield _of("url", loaded, trouble.error)
    try:
        loaded.check_scope(can.scope)
    except ConfigError as error:
        yield _error(error)
    try:
        if can.scope in ("user", "host") or loaded.state_dir is not None:
            loaded.state_place(create=False)
    except ConfigError as error:
        yield _error(error)
    except BackendUnavailable as error:
        yield _of("state_dir", loaded, error, lacking)
    granted = fitted(loaded.ttl, can)
    if granted != loaded.ttl and loaded.is_set("ttl"):
        source = loaded.source("ttl")
        if loaded.strict:
            refusal = refused(loaded.ttl, granted, can, source=source)
            yield _error(refusal)
        else:
            yield Finding(
                "config", "warning", misfit(loaded.ttl, granted, spec.name, can), f"ttl is from {source}"
            )


def _of(key: str, loaded: Config, error: LockkitError, severity: Severity = "error") -> Finding:
    """A finding about the value of a setting, with the setting's source."""
    hint = f"{key} is from {loaded.source(key)}" + (f"; {error.hint}" if error.hint else "")
    return Finding("config", severity, error.message, hint)


def _tables(loaded: Config, entries: Sequence[Installed], plugins: PluginManager) -> Iterator[Finding]:
    offering = {canonical(entry.dist) for entry in entries} | {PROJECT}
    judged = plugins.judging()
    for dist in loaded.plugins:
        origins = sorted(
            {where for key, where in loaded.sources.items() if key.startswith(f"plugins.{dist}.")}
        )
        where = f" (from {', '.join(origins)})" if origins else ""
        shown = redact_name(dist)
        if dist == PROJECT:
            told = (
                f"[plugins.{shown}]{where} has no effect, because lockkit's own stores have no settings there"
            )
            yield Finding("config", "warning", told, "write the options of a store into the query of its URL")
            continue
        if dist in offering or _is_installed(dist):
            if dist not in judged:
                told = (
                    f"[plugins.{shown}]{where} is not checked,"
                    f" because no installed plugin of {shown} checks its settings"
                )
                yield Finding("config", "ok", told)
            continue
        told = f"[plugins.{shown}]{where} is for a distribution that is not installed"
        yield Finding(
            "config", "warning", told, meant(dist, offering) or f"pip install {quoted(shown)}, or remove it"
        )


def _is_installed(dist: str) -> bool:
    # A plugin that is passed in code belongs to a distribution as well, but has no entry point.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(dist)
    except PackageNotFoundError:
        return False
    return True


def _switches(loaded: Config, entries: Sequence[Installed]) -> Iterator[Finding]:
    names = {canonical(name) for entry in entries for name in (entry.name, entry.dist)}
    known = names | {store.name for store in SCHEMES.values()} | SHIPPED.keys() | {"all"}
    for name in loaded.disable_plugins:
        if canonical(name) not in known:
            told = (
                f"disable_plugins (from {loaded.source('disable_plugins')}):"
                f" there is no plugin {redact_name(name)!r}"
            )
            yield Finding("config", "warning", told, meant(name, known) or "see: lockkit plugins")
