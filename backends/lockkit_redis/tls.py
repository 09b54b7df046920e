"""The files of TLS. They are looked at before they are used: what OpenSSL says of them names none, and would look like the network."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockkit.errors import ConfigError
from lockkit.settings import veiled

__all__ = ["FILES", "tls_of"]

FILES = {
    "ca_file": "ssl_ca_certs",
    "cert_file": "ssl_certfile",
    "key_file": "ssl_keyfile",
}
"""The options of a URL, and what redis-py calls them."""
_CERTIFICATE = "a file in PEM form, with -----BEGIN CERTIFICATE----- in it"
_KEY = "a file in PEM form, with -----BEGIN PRIVATE KEY----- in it"


def tls_of(options: Mapping[str, str], shown: str, *, secure: bool) -> dict[str, Any] | None:
    """Keyword arguments for redis-py's TLS connection; None for none.

    Raises:
        ConfigError: There is no TLS to use the files for, or one of them is of no use; it names the option and the file.
    """
    stated = {option: options[option] for option in FILES if option in options}
    if stated and not secure:
        given = ", ".join(sorted(stated))
        raise ConfigError(f"{shown}: {given} needs TLS", hint="write rediss://, or tls=yes with Sentinel")
    files = {option: _file(path, option, shown) for option, path in stated.items()}
    _look(files, stated, shown)
    found: dict[str, Any] = {theirs: files[ours] for ours, theirs in FILES.items() if ours in files}
    return {**found, "ssl_check_hostname": True} if secure else None  # redis-py 5 does not by itself


def _file(path: str, option: str, shown: str) -> str:
    """A file that can be read: a wrong path must not look like a wrong certificate."""
    place = Path(path).expanduser()
    if not (place.is_file() and os.access(place, os.R_OK)):
        raise ConfigError(
            f"{shown}: {option}: cannot read {veiled(path, shown)}",
            hint="name a file that you may read",
        )
    return str(place)


def _look(files: Mapping[str, str], stated: Mapping[str, str], shown: str) -> None:
    def unfit(option: str, what: str, hint: str) -> ConfigError:
        return ConfigError(f"{shown}: {option}: {veiled(stated[option], shown)} {what}", hint=hint)

    for option in ("ca_file", "cert_file"):
        if option in files and not _has_certificate(files[option]):
            raise unfit(option, "is no certificate", f"{option} is {_CERTIFICATE}")
    if "key_file" in files and "cert_file" not in files:
        raise unfit(
            "key_file",
            "is of no use without a certificate",
            "add cert_file=PATH, the certificate that belongs to this key",
        )
    if "cert_file" not in files:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            files["cert_file"], files.get("key_file"), password=_ask
        )
    except _PassphraseWanted:
        where = "key_file" if "key_file" in files else "cert_file"
        hint = "lockkit asks nobody for it: openssl pkey -in FILE -out FILE2 writes the key without"
        raise unfit(where, "has a key with a passphrase", hint) from None
    except ssl.SSLError as error:
        mismatch = "MISMATCH" in str(error)
        if "key_file" not in files:
            what = "has a key in it that is not its own" if mismatch else "has no key in it"
            raise unfit("cert_file", what, f"add key_file=PATH, {_KEY}") from None
        if mismatch:
            raise unfit(
                "key_file", "is not the key of cert_file", "name the two that belong together"
            ) from None
        raise unfit("key_file", "is no key", f"key_file is {_KEY}") from None


class _PassphraseWanted(Exception):
    pass


def _ask() -> str:
    raise _PassphraseWanted


def _has_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
