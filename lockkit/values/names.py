"""Names and namespaces: the allowed ones and their stored form; the claim id, shown instead of a token.

Different names never interact and equal names always do (S8). Names are compared by code points (NFC and NFD
differ), and a name is percent-encoded, never interpolated, where it becomes part of a key or path.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable

__all__ = [
    "ALERTER",
    "LONGEST_NAME",
    "RECOVERER",
    "STANDING",
    "check_name",
    "check_namespace",
    "check_token",
    "claim_id",
    "decode",
    "digest",
    "digest_of",
    "encode",
    "is_name",
    "is_namespace",
    "new_token",
]

LONGEST_NAME = 512
"""The longest name, in bytes of UTF-8."""
RECOVERER = "@recover"
"""The lock by which one of the recoverers of a namespace is elected to act."""
ALERTER = "@alerts"
"""The lock by which one of the alert engines on a store is elected to look at the locks."""
STANDING = (RECOVERER, ALERTER)
"""The locks that lockkit holds for as long as it runs: their age says nothing."""

# Compiled when first used: to compile both takes half a millisecond of every `import lockkit`.
_LONGEST_NAMESPACE = 64
_MARKS = str.maketrans("", "", "._-")
"""Drops the characters that a namespace may contain beside letters and digits."""
_TOKEN = r"[0-9a-f]{32}"  # noqa: S105 (the form of one)


def check_name(name: object) -> str:
    """Return the name if it may be locked.

    Raises:
        ConfigError: The name is not a str, is empty, has over :data:`LONGEST_NAME` bytes, is not valid UTF-8
            (lone surrogates), or contains a control character (NUL, newline, ...).
    """
    if not isinstance(name, str):
        raise ConfigError(f"a lock name must be a str, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError("a lock name must be valid Unicode; this one has a lone surrogate") from None
    if not 0 < size <= LONGEST_NAME:
        raise ConfigError(f"a lock name must be 1 to {LONGEST_NAME} bytes of UTF-8, not {size}")
    if not name.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise ConfigError(f"a lock name must not contain control characters: {name!r}")
    return name


def is_name(name: object) -> bool:
    """Whether a name may be locked."""
    try:
        check_name(name)
    except ConfigError:
        return False
    return True


def is_namespace(namespace: object) -> bool:
    """Whether a namespace is allowed."""
    try:
        check_namespace(namespace)
    except ConfigError:
        return False
    return True


def check_namespace(namespace: object) -> str:
    """Return the namespace if it is allowed: 1 to 64 of ``A-Z a-z 0-9 . _ -``, first a letter or digit.

    Raises:
        ConfigError: The namespace is not allowed.
    """
    if not (
        isinstance(namespace, str)
        and len(namespace) <= _LONGEST_NAMESPACE
        and namespace.isascii()
        and namespace[:1].isalnum()
        and namespace.translate(_MARKS).isalnum()
    ):
        raise ConfigError(
            f"not a namespace: {namespace!r}",
            hint="use 1 to 64 of the characters A-Z a-z 0-9 . _ - and begin with a letter or digit",
        )
    return namespace


def encode(name: str) -> str:
    """Percent-encode a name for a key or file name. Reversible; the result never contains ``.`` or ``/``."""
    from urllib.parse import quote

    return quote(name, safe="").replace(".", "%2E")


def decode(stored: str) -> str:
    """Decode a name that :func:`encode` has encoded."""
    from urllib.parse import unquote

    return unquote(stored)


def new_token() -> str:
    """A fresh 128-bit random token, 32 hex digits: one per claim, never per client or object."""
    return os.urandom(16).hex()


def check_token(token: object) -> str:
    """Return the token if it has the right form, so that no arbitrary text reaches a store's commands.

    Raises:
        ConfigError: The token is not 32 hex digits. The message omits it: it may be another secret.
    """
    if not isinstance(token, str) or not re.fullmatch(_TOKEN, token):
        raise ConfigError(
            "not the token of a claim",
            hint="a token has 32 hex digits, as lockkit acquire --print-token prints it",
        )
    return token


def claim_id(token: str) -> str:
    """The public identifier of a claim: the first 12 hex digits of sha256(token)."""
    return _sha256(token.encode()).hexdigest()[:12]


def digest(text: str) -> str:
    """The sha256 of a text, in hex digits."""
    return digest_of(text.encode())


def digest_of(data: bytes) -> str:
    """The sha256 of bytes, in hex digits."""
    return _sha256(data).hexdigest()


def _own_sha256() -> Callable[[bytes], hashlib._Hash]:
    # Use the interpreter's own sha256 if there is one: hashlib loads OpenSSL, which takes 4 ms at every
    # program's start, and is half as fast on short texts.
    for module in ("_sha2", "_sha256"):
        try:
            return import_module(module).sha256  # type: ignore[no-any-return]
        except ImportError:
            continue
    import hashlib

    return hashlib.sha256


_sha256 = _own_sha256()
