"""Lock names of texts that may not be names themselves."""

from __future__ import annotations

from lockkit.errors import ConfigError
from lockkit.notes.members import POOLS
from lockkit.values.names import check_name, digest_of

__all__ = ["safe_name"]

_MARK = "~"
_DIGITS = 64
_START = 96
"""Characters of a text that its name begins with, so that people can see what is locked."""


def safe_name(text: str) -> str:
    """A lock name for any text: a URL, path or key that may be too long, or have forbidden characters.

    A text that may be a name stays as it is. Another one (over 512 bytes of UTF-8, empty, with control
    characters or lone surrogates, or like the names of pools) becomes its first 96 characters, ``~`` and the
    SHA-256 of all of it, in 64 hex digits; so does a text that ends like such a name. Equal texts have equal
    names on all hosts and in all versions; different ones differ, unless their SHA-256 is the same. Call it
    once, never on a name that it made.

    Raises:
        ConfigError: The argument is no str.
    """
    if not isinstance(text, str):
        raise ConfigError(f"safe_name() takes a str, not {type(text).__name__}", hint="safe_name(str(key))")
    if not (_looks_made(text) or text.startswith(POOLS)):
        try:
            return check_name(text)
        except ConfigError:
            pass
    start = "".join(char if char.isprintable() else "_" for char in text[:_START])
    if start.startswith(POOLS):
        start = start.replace("@", "_", 1)
    return f"{start}{_MARK}{digest_of(text.encode('utf-8', 'surrogatepass'))}"


def _looks_made(text: str) -> bool:
    """Whether a text ends like a name with a digest, which must not be the name of two texts."""
    return text[-_DIGITS - 1 : -_DIGITS] == _MARK and set(text[-_DIGITS:]) <= set("0123456789abcdef")
