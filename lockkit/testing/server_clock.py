"""A wall clock for server processes, which a test can move while the servers run.

The server starts with a small library that is loaded before the C library (``LD_PRELOAD``). The library
answers ``gettimeofday``, ``time`` and ``clock_gettime(CLOCK_REALTIME)`` from a page shared with the test.
Monotonic clocks, and so timers and timeouts, stay real. libfaketime does the same, but allocates memory to
find out the time, and the allocator of Redis and Valkey asks for the time: those servers hang at the start.
"""

from __future__ import annotations

import mmap
import shutil
import subprocess
import sys
from pathlib import Path

from lockkit.lib.clock import SYSTEM
from lockkit.testing.processes import ServerMissing

__all__ = ["ServerClock"]

_LIBRARY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct micro { time_t tv_sec; long tv_usec; };

/* Nanoseconds: [0] is added to the machine's clock; [1], unless 0, is shown instead. */
static volatile int64_t *shown;

static void look_up(void) {
    const char *path = getenv("LOCKKIT_SERVER_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, 16, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) shown = page;
}

int clock_gettime(clockid_t which, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, which, at);
    if (result || (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE)) return result;
    if (!shown) look_up();
    if (!shown) return 0;
    int64_t stood = shown[1];
    int64_t now = stood ? stood : at->tv_sec * 1000000000LL + at->tv_nsec + shown[0];
    at->tv_sec = now / 1000000000LL;
    at->tv_nsec = now % 1000000000LL;
    return 0;
}

int gettimeofday(struct micro *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) { at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; }
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def _nanoseconds(seconds: float) -> int:
    # Whole microseconds: a float holds no more of a time of day, and a server shows no more.
    return round(seconds * 1_000_000) * 1000


class ServerClock:
    """The wall clock of a server: the machine's clock, moved by a test, or stopped.

    Make the clock first, and start the server with :attr:`environ`. Several servers may share one clock.
    """

    def __init__(self, folder: Path) -> None:
        """Make a clock whose files are in a folder.

        Raises:
            ServerMissing: There is no C compiler, or this is not Linux.
        """
        if not self.possible():
            raise ServerMissing("moving a server's clock takes Linux and a C compiler")
        self._library = folder / "clock.so"
        self._page = folder / "clock"
        source = folder / "clock.c"
        source.write_text(_LIBRARY)
        made = subprocess.run(
            ["cc", "-shared", "-fPIC", "-O2", "-o", self._library, source],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ServerMissing(f"cc failed; are the C library's headers installed?\n{made.stderr}")
        self._page.write_bytes(bytes(16))
        with self._page.open("r+b") as page:
            self._words = memoryview(mmap.mmap(page.fileno(), 16)).cast("q")

    @staticmethod
    def possible() -> bool:
        """Whether this machine can move a server's clock."""
        return sys.platform == "linux" and shutil.which("cc") is not None

    @property
    def environ(self) -> dict[str, str]:
        """The variables that the server needs in its environment."""
        return {"LD_PRELOAD": str(self._library), "LOCKKIT_SERVER_CLOCK": str(self._page)}

    def now(self) -> float:
        """The server's time: seconds since the epoch."""
        return self._words[1] // 1000 / 1e6 or SYSTEM.wall() + self._words[0] / 1e9

    def step(self, seconds: float) -> None:
        """Move the clock, forward or back, at once."""
        by = _nanoseconds(seconds)
        at = 1 if self._words[1] else 0
        self._words[at] += by

    def stand(self, at: float | None = None) -> None:
        """Stop the clock, at the current time or at a given one. :meth:`step` still moves it."""
        self._words[1] = _nanoseconds(self.now() if at is None else at)

    def reset(self) -> None:
        """Show the machine's clock again."""
        self._words[0] = 0
        self._words[1] = 0
