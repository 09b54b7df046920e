"""One connection: it sends a statement and reads the answer within a time limit.

libpq speaks the protocol (``psycopg.pq``), and this module waits: psycopg's own waiting has no limit, and
a server that stops answering must not cost a caller more than its budget.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from psycopg import OperationalError
from psycopg.pq import (
    ConnStatus,
    DiagnosticField,
    ExecStatus,
    PGconn,
    PollingStatus,
    TransactionStatus,
    abc,
)

from lockkit.lib.origin import this_origin
from lockkit.store.connecting import in_time
from lockkit.store.spi import Refused
from lockkit_postgres.address import Address
from lockkit_postgres.failures import answered, not_connected, unanswered

__all__ = ["Connection"]

_RESET = struct.pack("ii", 1, 0)
_SETTINGS = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('statement_timeout', '2s', false),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit')
            WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
        false)
"""
"""Settings of the session: the isolation of functions, the longest time for an abandoned statement, and a
commit that survives a crash of the server."""


class Connection:
    """A connection, used by one call at a time. Reset it after an Unknown: an old answer may still come.

    Attributes:
        host: The place of its host in the address.
    """

    def __init__(self, address: Address, end: float, first: int = 0) -> None:
        """Connect to the first host that takes writes, before ``time.monotonic()`` reaches ``end``.

        The hosts are tried in turn, starting with the ``first``. Each has its share of the time, so that a
        silent host does not use it up.

        Raises:
            Refused: There is no connection. Nothing was sent to the store.
        """
        self._where = address.shown
        self._origin = this_origin()
        self.host, self._conn = _dial(address, end, first)
        self._conn.nonblocking = 1
        try:
            self.ask(_SETTINGS, (), end)
        except Exception as error:
            self.reset()
            raise not_connected(error, self._where) from error

    def ask(self, statement: str, words: Sequence[object], end: float) -> str | None:
        """Run one statement, which is one transaction; return its first value, or None if it has none.

        Raises:
            Refused: The server refused it and rolled the transaction back.
            Unknown: No answer came in time, or one that does not tell whether the transaction was committed.
        """
        try:
            if words:
                self._conn.send_query_params(statement.encode(), [_word(word) for word in words])
            else:  # the one way to send several statements
                self._conn.send_query(statement.encode())
            while self._conn.flush():
                self._wait(select.POLLIN | select.POLLOUT, end)
            return self._answer(end)
        except (OperationalError, OSError) as error:
            raise unanswered(error, self._where) from error

    def _answer(self, end: float) -> str | None:
        value: bytes | None = None
        trouble = None
        # Read to the end: the server sends its result before it commits; an error of the commit comes later.
        while True:
            while self._conn.is_busy():
                self._wait(select.POLLIN, end)
            result = self._conn.get_result()
            if result is None:
                break
            if result.status == ExecStatus.TUPLES_OK:
                value = result.get_value(0, 0)
            elif result.status == ExecStatus.FATAL_ERROR:
                fields = (DiagnosticField.SQLSTATE, DiagnosticField.SEVERITY_NONLOCALIZED)
                state, severity = [
                    found.decode() if (found := result.error_field(each)) else None for each in fields
                ]
                said = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
                trouble = answered(state, severity, said.decode(errors="replace"), self._where)
        if trouble is not None:
            raise trouble
        return None if value is None else value.decode()

    def notified(self) -> list[str]:
        """The messages that have come on the channels that it listens to."""
        messages = []
        while (notice := self._conn.notifies()) is not None:
            messages.append(notice.extra.decode())
        return messages

    def listen(self, beside: int, end: float) -> bool:
        """Wait until the server sends something or ``beside`` is readable; False if the time is up first.

        Raises:
            Unknown: The connection broke.
        """
        poll = select.poll()
        poll.register(self._conn.socket, select.POLLIN)
        poll.register(beside, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(max(end - time.monotonic(), 0.0) * 1000)]
        if self._conn.socket in ready:
            try:
                self._conn.consume_input()
            except OperationalError as error:
                raise unanswered(error, self._where) from error
        return bool(ready)

    def _wait(self, events: int, end: float) -> None:
        poll = select.poll()
        poll.register(self._conn.socket, events)
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError("timed out")
        self._conn.consume_input()

    def quiet(self) -> bool:
        """Whether the connection is reusable: no call was cut short, and the server sent nothing since."""
        conn = self._conn
        if conn.status != ConnStatus.OK or conn.transaction_status != TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(conn.socket, select.POLLIN)
        return not poll.poll(0)

    def reset(self) -> None:
        """Close the connection and drop this host's buffers, so an abandoned request cannot arrive later."""
        if self._origin.is_here() and self._conn.status == ConnStatus.OK:
            try:
                with socket.socket(fileno=os.dup(self._conn.socket)) as copy:
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except (OSError, OperationalError):
                pass  # a Unix socket has no such buffers
        self.close()

    def close(self) -> None:
        """Close the connection. Does nothing in a forked child: closing would end the parent's session."""
        if self._origin.is_here():
            self._conn.finish()


def _word(word: object) -> bytes | None:
    if word is None:
        return None
    if isinstance(word, bool):
        return b"true" if word else b"false"
    return str(word).encode()


def _dial(address: Address, end: float, first: int) -> tuple[int, abc.PGconn]:
    many = len(address.hosts)
    told: list[str] = []
    for turn in range(many):
        at, now = (first + turn) % many, time.monotonic()
        try:
            return at, _connect(address, at, now + (end - now) / (many - turn))
        except Refused as refusal:
            if not refusal.retry or many == 1:  # that another host lets us in is not to be expected
                raise
            told.append(refusal.error.message.removeprefix(f"cannot reach {address.shown}: "))
    raise not_connected("; ".join(told), address.shown)


def _connect(address: Address, at: int, end: float) -> abc.PGconn:
    """Connect on another thread, because nothing else limits how long a name server may take.

    Raises:
        Refused: No connection was made in time. One that is made later is closed.
    """
    budget = max(end - time.monotonic(), 0.0)
    try:
        made = in_time(lambda: _met(address.hosts[at], end), PGconn.finish, budget, "lockkit-postgres-dial")
    except Exception as error:
        raise not_connected(error, address.shown) from error
    if made.status != ConnStatus.OK:
        raise not_connected(made.error_message.decode(errors="replace"), address.shown)
    return made


def _met(conninfo: str, end: float) -> abc.PGconn:
    """Connect step by step: while psycopg's ``connect`` waits for a silent host, no other thread can connect.

    Raises:
        TimeoutError: The server has not answered by ``end``.
    """
    conn = PGconn.connect_start(conninfo.encode())
    while conn.status != ConnStatus.BAD:
        state = conn.connect_poll()
        if state in (PollingStatus.OK, PollingStatus.FAILED):
            break
        poll = select.poll()
        poll.register(conn.socket, select.POLLIN if state == PollingStatus.READING else select.POLLOUT)
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            conn.finish()
            raise TimeoutError("timed out")
    return conn
