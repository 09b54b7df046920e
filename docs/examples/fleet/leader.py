"""A leader: of all processes that run this, one works at a time, and the next takes over when it ends."""

from __future__ import annotations

import signal
import sys
import time

import lockkit


def lead(lease: lockkit.Lease) -> None:
    while lease.valid():
        print("leading with fence", lease.fence, flush=True)  # the work, in short steps
        time.sleep(0.1)


def main(name: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # leaves the blocks below, which release
    with lockkit.connect() as client:
        while True:
            try:
                with client.lock(name, ttl=10).acquire() as lease:
                    lead(lease)
            except lockkit.LeaseLost:
                continue  # paused or cut off for too long: another one may lead by now


if __name__ == "__main__":
    main(*sys.argv[1:])
