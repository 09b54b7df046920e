"""A real Chromium for tests, and for the pictures of the dashboard: Debian's, driven by playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.servers.programs import find_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]

_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
"""Options of a browser that asks nobody on the network for anything of its own accord."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window and with a new profile, which ends with the context.

    Until then asyncio counts this thread as one with a running loop: nothing can call :func:`asyncio.run`.

    Raises:
        ServerMissing: Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    program = find_program("chromium")
    with sync_playwright() as driver:
        # Chromium's sandbox refuses to work for root, as whom containers run tests.
        browser = driver.chromium.launch(
            executable_path=program, args=_QUIET, headless=True, chromium_sandbox=os.geteuid() != 0
        )
        try:
            yield browser
        finally:
            browser.close()
