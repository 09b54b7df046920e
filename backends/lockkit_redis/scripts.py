"""The Lua scripts: sent by their digest, and whole where the server does not know them."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from lockkit_redis.connection import pack

__all__ = [
    "ACQUIRE",
    "ANNOTATE",
    "CLEAR",
    "EVICT",
    "EXTEND",
    "RECORD",
    "RELEASE",
    "RENEW",
    "RESIZE",
    "Script",
]


def _text(name: str) -> str:
    return files("lockkit_redis").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


_HEADER, _QUEUE = _text("header"), _text("queue")


class Script:
    """One script: the header, the part that runs first, the functions of the queue, the rest.

    Attributes:
        text: The Lua text.
        sha: The digest by which the server knows the text.
        head: The start of its command, up to the first of ``keys`` keys, which ``count`` arguments follow.
    """

    def __init__(
        self, name: str, *, first: str = "", queue: bool = True, keys: int = 5, count: int = 0
    ) -> None:
        self.text = _HEADER + first + _QUEUE + _text(name) if queue else _text(name)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        words = pack("EVALSHA", self.sha, keys)
        self.head = b"*%d%b" % (3 + keys + count, words[words.index(b"\r") :])

    def packed(self, keys: tuple[str, ...], *words: str | bytes | int) -> bytes:
        """The command that runs it, by its digest."""
        return pack("EVALSHA", self.sha, len(keys), *keys, *words)

    def spelled_out(self, packed: bytes) -> bytes:
        """The same command with the script's text, for a server that does not know it; afterwards it does."""
        text = self.text.encode()
        return packed.replace(
            b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.sha.encode(),
            b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(text), text),
            1,
        )


ACQUIRE = Script("acquire", first=_text("acquire_first"), keys=6, count=9)
RENEW = Script("renew", count=3)
EXTEND = Script("extend")
RELEASE = Script("release", first=_text("release_first"), count=5)
EVICT = Script("evict")
RESIZE = Script("resize")
ANNOTATE = Script("annotate")
RECORD = Script("record", queue=False)
CLEAR = Script("clear", queue=False)
