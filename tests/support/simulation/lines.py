"""Lines between clients and a server, on which a script waits until somebody lets it run.

A client's call runs in a thread of its own, with all of the client's own code: what it packs, when it looks at the clock,
what it keeps in mind. Only one such thread runs at a time, and it is waited for until the call is over or has sent a
script and waits for the answer, so every run of a schedule is the same run. Everything else that a client sends (its
introduction, an index) is passed on at once.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.simulation.resp import Cut, values

__all__ = ["Call", "Lines", "Script"]

_PATIENCE = 30.0
"""Seconds of real time for a step that takes none in the simulation."""
_SCRIPTS = (b"EVALSHA", b"EVAL", b"FCALL")


class Call:
    """One call of a client's.

    Attributes:
        script: Sent, and not run or not answered yet; the call waits.
        done: The call is over.
        value: What it returned.
        error: What it raised.
    """

    def __init__(self, what: Callable[[], Any]) -> None:
        self._what = what
        self.script: Script | None = None
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Run it, in its thread."""
        try:
            self.value = self._what()
        except Exception as error:  # Refused and Unknown are answers
            self.error = error


class Script:
    """Commands in a row, a script among them, on their way to the server.

    Attributes:
        count: How many commands.
        places: The places of the scripts among them; the others are the client's own business.
    """

    def __init__(self, line: _Line, packed: bytes, commands: list[Any]) -> None:
        self.line = line
        self.count = len(commands)
        self.places = [place for place, command in enumerate(commands) if command[0] in _SCRIPTS]
        self._packed = packed

    def run(self) -> bytes:
        """Let the server have it; what it answers."""
        return self.line.ask(self._packed, self.count)

    def lose(self) -> None:
        """Lose the request on its way."""
        self.line.end()


class _Line:
    """A client's connection, and its continuation to the server. The one may end before the other."""

    def __init__(self, client: socket.socket, server: str) -> None:
        self.client = client
        self.server = socket.socket(socket.AF_UNIX)
        self.server.settimeout(_PATIENCE)
        self.server.connect(server)
        self.came = b""

    def ask(self, packed: bytes, count: int) -> bytes:
        """Pass commands on and wait for their answers."""
        self.server.sendall(packed)
        answers = b""
        while True:
            some = self.server.recv(1 << 16)
            if not some:
                raise ConnectionError("the server under the simulation has gone")
            answers += some
            with contextlib.suppress(Cut):
                if len(values(answers)) >= count:
                    return answers

    def end(self) -> None:
        """Nothing goes to the server any more."""
        self.server.close()


class Lines:
    """All the lines of one simulated world.

    Args:
        at: Where clients connect: the path of a socket that is made here.
        server: The path of the server's.
    """

    def __init__(self, at: Path, server: Path) -> None:
        self.at = at
        at.unlink(missing_ok=True)
        self._server = str(server)
        self._open: set[_Line] = set()
        self._poll = selectors.DefaultSelector()
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(at))
        self._door.listen()
        self._over, self._bell = socket.socketpair()
        self._poll.register(self._door, selectors.EVENT_READ)
        self._poll.register(self._over, selectors.EVENT_READ)

    def begin(self, what: Callable[[], Any]) -> Call:
        """Begin a call, up to its first script or its end."""
        call = Call(what)
        threading.Thread(target=self._thread, args=(call,), name="simulated call", daemon=True).start()
        self._go_on(call)
        return call

    def answer(self, call: Call, answers: bytes) -> None:
        """Let a call read what the server has said, and go on up to its next script or its end."""
        script, call.script = call.script, None
        assert script is not None
        script.line.client.sendall(answers)
        self._go_on(call)

    def cut(self, call: Call) -> None:
        """Cut a call's line on the client's side: it hears no answer. The script on its way to the server stays there."""
        first = call.script
        while not call.done:
            script, call.script = call.script, None
            assert script is not None
            self._close(script.line)
            if script is not first:
                script.lose()
            self._go_on(call)

    def close(self) -> None:
        """End every line. No call may be under way."""
        for line in list(self._open):
            self._close(line)
            line.end()
        self._poll.close()
        for each in (self._door, self._over, self._bell):
            each.close()

    def _thread(self, call: Call) -> None:
        call.run()
        self._bell.send(b".")

    def _go_on(self, call: Call) -> None:
        while call.script is None and not call.done:
            ready = self._poll.select(_PATIENCE)
            if not ready:
                raise TimeoutError("a call neither ends nor sends anything")
            for key, _ in ready:
                self._look(key, call)

    def _look(self, key: selectors.SelectorKey, call: Call) -> None:
        if key.fileobj is self._over:
            self._over.recv(1)
            call.done = True
        elif key.fileobj is self._door:
            line = _Line(self._door.accept()[0], self._server)
            self._open.add(line)
            self._poll.register(line.client, selectors.EVENT_READ, line)
        else:
            self._hear(key.data, call)

    def _hear(self, line: _Line, call: Call) -> None:
        some = line.client.recv(1 << 16)
        if not some:
            self._close(line)
            line.end()
            return
        line.came += some
        try:
            commands = values(line.came)
        except Cut:
            return
        packed, line.came = line.came, b""
        if any(command[0] in _SCRIPTS for command in commands):
            call.script = Script(line, packed, commands)
        else:
            line.client.sendall(line.ask(packed, len(commands)))

    def _close(self, line: _Line) -> None:
        if line in self._open:
            self._open.remove(line)
            self._poll.unregister(line.client)
            line.client.close()
