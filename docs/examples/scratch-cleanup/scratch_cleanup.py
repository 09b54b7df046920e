"""A plugin that empties a lock's scratch folder before the release, so the next holder finds it empty."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from lockkit import hookimpl
from lockkit.config.config import Config, plugin_settings
from lockkit.facts import CleanupContext, Finding
from lockkit.values.names import encode

DIST = "scratch-cleanup"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings in [plugins.scratch-cleanup]."""

    root: str
    """The folder with a folder for each lock. There is no default, because the files in them are deleted."""
    keep: tuple[str, ...] = ()
    """The names of locks whose folders are not emptied."""

    def __post_init__(self) -> None:
        if not self.root.startswith("/"):
            raise ValueError("root must be an absolute path")


class ScratchCleanup:
    """The plugin, one instance per process."""

    settings: Settings

    @hookimpl
    def lockkit_settings(self, config: Config) -> None:
        """Read the plugin's own table before the first acquire. A typo is a ConfigError with file and key."""
        self.settings = plugin_settings(config, DIST, Settings)

    @hookimpl
    def lockkit_cleanup(self, context: CleanupContext) -> None:
        """Remove the files that the holder left. Runs while the lock is still held and renewed."""
        if context.lost or context.name in self.settings.keep:
            return  # after a loss the files may already be the next holder's
        folder = Path(self.settings.root, encode(context.name))
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
    def lockkit_health(self) -> list[Finding]:
        """Tell `lockkit doctor` whether the folder is there."""
        root = self.settings.root
        if not Path(root).is_dir():
            return [Finding(DIST, "warning", f"{root} is not there", f"mkdir -p {root}")]
        return [Finding(DIST, "ok", f"scratch folders are under {root}")]


plugin = ScratchCleanup()
