"""A plugin that empties a lock's scratch folder before the lock is released, so that the next holder finds an empty one."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from lockkit import config, hookimpl
from lockkit.errors import ConfigError
from lockkit.facts import CleanupContext, Finding
from lockkit.names import encode

DIST = "scratch-cleanup"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings in [plugins.scratch-cleanup]."""

    root: str
    """The folder that contains a folder for each lock. There is no default, because the files in those folders are deleted."""
    keep: tuple[str, ...] = ()
    """The names of locks whose folders are not emptied."""


def settings() -> Settings:
    """Read the plugin's own table. A typo in it is a ConfigError that names the file and the key."""
    return config.plugin_settings(config.load(), DIST, Settings)


@hookimpl
def lockkit_cleanup(context: CleanupContext) -> None:
    """Remove the files that the holder left. Runs while the lock is still held and renewed."""
    mine = settings()
    if context.lost or context.name in mine.keep:
        return  # after a loss the files may already be the next holder's
    folder = Path(mine.root, encode(context.name))
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if context.budget() < 0.1:
            raise TimeoutError(f"no time left to empty {folder}")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@hookimpl
def lockkit_health() -> list[Finding]:
    """Tell `lockkit doctor` whether the settings can be read, before a release needs them."""
    try:
        root = settings().root
    except ConfigError as error:
        return [Finding(DIST, "error", error.message, error.hint or "")]
    if not Path(root).is_dir():
        return [Finding(DIST, "warning", f"{root} is not there", f"mkdir -p {root}")]
    return [Finding(DIST, "ok", f"scratch folders are under {root}")]
