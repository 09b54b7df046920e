"""The files of TLS, checked before they are used: OpenSSL's errors name no file, and look like trouble with the network."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lockkit.store.urls import Url

__all__ = ["OPTIONS", "Files", "read_files"]

OPTIONS = ("ca_file", "cert_file", "key_file")
"""The options of a URL that name them."""
_CERTIFICATE = "a file in PEM form, with -----BEGIN CERTIFICATE----- in it"
_KEY = "a file in PEM form, with -----BEGIN PRIVATE KEY----- in it"


class Files(NamedTuple):
    """The files that a URL names; None for one that it does not.

    Attributes:
        ca_file: The authorities to trust instead of those of the operating system.
        cert_file: The client's certificate.
        key_file: The key of that certificate, where it does not stand in the same file.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


def read_files(url: Url, options: Mapping[str, str], secure: str | None) -> Files:
    """The files that the options name.

    Args:
        url: For errors.
        options: Its options.
        secure: None for a URL with TLS; otherwise how to write one, for the error.

    Raises:
        ConfigError: There is no TLS to use the files for, or one of them is of no use; it names the option and the file.
    """
    given = {option: options[option] for option in OPTIONS if option in options}
    if given and secure is not None:
        raise url.wrong(f"{', '.join(sorted(given))} needs TLS", secure)
    files = Files(**{option: _readable(url, option, path) for option, path in given.items()})
    _look(url, files, given)
    return files


def _readable(url: Url, option: str, path: str) -> str:
    """A file that can be read: a wrong path must not look like a wrong certificate."""
    place = Path(path).expanduser()
    if not (place.is_file() and os.access(place, os.R_OK)):
        raise url.wrong(f"{option}: cannot read {url.veiled(path)}", "name a file that you may read")
    return str(place)


def _look(url: Url, files: Files, given: Mapping[str, str]) -> None:
    def unfit(option: str, what: str, hint: str) -> Exception:
        return url.wrong(f"{option}: {url.veiled(given[option])} {what}", hint)

    for option, file in (("ca_file", files.ca_file), ("cert_file", files.cert_file)):
        if file is not None and not _has_certificate(file):
            raise unfit(option, "is no certificate", f"{option} is {_CERTIFICATE}")
    certificate, key = files.cert_file, files.key_file
    if certificate is None:
        if key is not None:
            hint = "add cert_file=PATH, the certificate that belongs to this key"
            raise unfit("key_file", "is of no use without a certificate", hint)
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=_ask)
    except _PassphraseWanted:
        where = "cert_file" if key is None else "key_file"
        hint = "lockkit asks nobody for it: openssl pkey -in FILE -out FILE2 writes the key without"
        raise unfit(where, "has a key with a passphrase", hint) from None
    except ssl.SSLError as error:
        mismatch = "MISMATCH" in str(error)
        if key is None:
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
