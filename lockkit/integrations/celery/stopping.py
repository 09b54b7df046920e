"""The end of all waits in a worker that is to stop, so that waiting tasks' messages go to other workers.

Celery closes a worker in its main process. Pool processes learn of it by a pipe, made before the fork: one
byte is written, and nobody reads it, so that all see it. For threads the switch itself is enough.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import Any

from celery import bootsteps

from lockkit.integrations.celery.worker_pool import pool_kind
from lockkit.lib.mutex import Mutex
from lockkit.lib.origin import Origin, this_origin
from lockkit.values.cancelling import Cancel

__all__ = ["end_waits_with", "waits_end"]

_mutex = Mutex()
_switch: Cancel | None = None
_pipe: tuple[int, int] | None = None
_hearing: Origin | None = None
"""The process whose switch will work: the main process uses its own; others need a listening thread."""


class EndWaits(bootsteps.StartStopStep):
    """The step of a worker that ends the waits as soon as the worker begins to close."""

    def close(self, worker: Any) -> None:  # noqa: ARG002 (Celery's signature)
        """End the waits of all processes of the worker. Running functions go on."""
        if _switch is not None:
            _switch.cancel()
        if _pipe is not None:
            with contextlib.suppress(OSError):
                os.write(_pipe[1], b".")


def end_waits_with(app: Any) -> None:
    """Have the worker that starts here end its tasks' waits when it closes. Call before it forks."""
    global _switch, _pipe, _hearing  # noqa: PLW0603 (one worker in a process)
    _switch, _hearing = Cancel(), this_origin()
    if pool_kind() == "prefork" and _pipe is None:
        _pipe = os.pipe()
    app.steps["worker"].add(EndWaits)


def waits_end() -> Cancel | None:
    """The switch that ends this process's waits; None outside a worker, or if it was not forked."""
    global _hearing  # noqa: PLW0603 (one for each process)
    if _switch is not None and _pipe is not None:
        with _mutex.of_this_process():
            if not (_hearing and _hearing.is_here()):
                _hearing = this_origin()
                threading.Thread(
                    target=_listen, args=(_pipe[0], _switch), name="lockkit-celery-stop", daemon=True
                ).start()
    return _switch


def _listen(pipe: int, switch: Cancel) -> None:
    poll = select.poll()  # select() refuses descriptors of 1024 and more
    poll.register(pipe, select.POLLIN)
    poll.poll()
    switch.cancel()
