"""The command line as a user who may only look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["command_line"]


def command_line(url: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``lockkit`` on a store, with an empty home folder."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LOCKKIT_URL": url,
        "HOME": str(folder),
        "LOCKKIT_STATE_DIR": str(folder / "state"),
    }
    return subprocess.run(
        [sys.executable, "-m", "lockkit", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
