"""The command line as a user who may only look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.forked import completed

__all__ = ["command_line"]


def command_line(url: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``lockkit`` on a store, with an empty home folder."""
    env = os.environ | {"LOCKKIT_URL": url, "HOME": str(folder), "LOCKKIT_STATE_DIR": str(folder / "state")}
    return completed([sys.executable, "-m", "lockkit", *words], env=env, cwd=folder)
