"""Connections between clients and a server, on which a script waits until somebody lets it run.

A client's call runs in its own thread, with all of the client's code: what it packs, when it looks at the
clock, what it remembers. One such thread runs at a time, until its call is over or waits for the answer to
a script, so every run of a schedule is the same. All else that a client sends is passed on at once.
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

__all__ = ["Call", "HeldConnections", "Script"]

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

    def __init__(self, connection: _Connection, packed: bytes, commands: list[Any]) -> None:
        self.connection = connection
        self.count = len(commands)
        self.places = [place for place, command in enumerate(commands) if command[0] in _SCRIPTS]
        self._packed = packed

    def run(self) -> bytes:
        """Let the server have it; what it answers."""
        return self.connection.ask(self._packed, self.count)

    def lose(self) -> None:
        """Lose the request on its way."""
        self.connection.end()


class _Connection:
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


class HeldConnections:
    """All the connections of one simulated world.

    Args:
        at: Where clients connect: the path of a socket that is made here.
        server: The path of the server's.
    """

    def __init__(self, at: Path, server: Path) -> None:
        self.at = at
        at.unlink(missing_ok=True)
        self._server = str(server)
        self._open: set[_Connection] = set()
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
        script.connection.client.sendall(answers)
        self._go_on(call)

    def cut(self, call: Call) -> None:
        """Cut a call's connection on the client's side: no answer arrives. A script under way stays there."""
        first = call.script
        while not call.done:
            script, call.script = call.script, None
            assert script is not None
            self._close(script.connection)
            if script is not first:
                script.lose()
            self._go_on(call)

    def close(self) -> None:
        """End every connection. No call may be under way."""
        for connection in list(self._open):
            self._close(connection)
            connection.end()
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
            connection = _Connection(self._door.accept()[0], self._server)
            self._open.add(connection)
            self._poll.register(connection.client, selectors.EVENT_READ, connection)
        else:
            self._hear(key.data, call)

    def _hear(self, connection: _Connection, call: Call) -> None:
        some = connection.client.recv(1 << 16)
        if not some:
            self._close(connection)
            connection.end()
            return
        connection.came += some
        try:
            commands = values(connection.came)
        except Cut:
            return
        packed, connection.came = connection.came, b""
        if any(command[0] in _SCRIPTS for command in commands):
            call.script = Script(connection, packed, commands)
        else:
            connection.client.sendall(connection.ask(packed, len(commands)))

    def _close(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._poll.unregister(connection.client)
            connection.client.close()
