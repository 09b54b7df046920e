"""Finding a server's program, with a hint for those who work on lockkit."""

from __future__ import annotations

from lockkit.testing import processes
from lockkit.testing.processes import ServerMissing

__all__ = ["find_program"]


def find_program(*names: str) -> str:
    """The first of these programs that is installed.

    Raises:
        ServerMissing: None is; the message tells what installs them.
    """
    try:
        return processes.find_program(*names)
    except ServerMissing as error:
        raise ServerMissing(f"{error}; run: make servers") from None
