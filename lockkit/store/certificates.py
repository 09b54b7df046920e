"""Checks of TLS files before their use: OpenSSL's errors name no file and look like network errors."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.urls import Url

__all__ = ["OPTIONS", "Files", "read_files", "tls_context"]

OPTIONS = ("ca_file", "cert_file", "key_file")
"""The options of a URL that name TLS files."""
_CERTIFICATE = "a file in PEM form, with -----BEGIN CERTIFICATE----- in it"
_KEY = "a file in PEM form, with -----BEGIN PRIVATE KEY----- in it"


class Files(NamedTuple):
    """The TLS files that a URL names; None for a file that it does not name.

    Attributes:
        ca_file: The authorities to trust instead of those of the operating system.
        cert_file: The client's certificate.
        key_file: The key of that certificate, if it is not in the same file.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


def read_files(url: Url, options: Mapping[str, str], secure: str | None) -> Files:
    """Check the files that the options name, and return them.

    Args:
        url: The URL, for errors.
        options: The URL's options.
        secure: None for a URL with TLS; otherwise the hint that says how to write a URL with TLS.

    Raises:
        ConfigError: The URL has no TLS, or a file cannot be used; the error names the option and the file.
    """
    given = {option: options[option] for option in OPTIONS if option in options}
    if given and secure is not None:
        raise url.wrong(f"{', '.join(sorted(given))} needs TLS", secure)
    files = Files(**{option: _readable(url, option, path) for option, path in given.items()})
    _look(url, files, given)
    return files


def _readable(url: Url, option: str, path: str) -> str:
    """Check that a file can be read, so that a wrong path does not look like a wrong certificate."""
    place = Path(path).expanduser()
    if not (place.is_file() and os.access(place, os.R_OK)):
        raise url.wrong(f"{option}: cannot read {url.veiled(path)}", "name a file that you may read")
    return str(place)


def _look(url: Url, files: Files, given: Mapping[str, str]) -> None:
    def unfit(option: str, what: str, hint: str) -> Exception:
        return url.wrong(f"{option}: {url.veiled(given[option])} {what}", hint)

    for option, file in (("ca_file", files.ca_file), ("cert_file", files.cert_file)):
        if file is not None and not _has_certificate(file):
            raise unfit(option, "is not a certificate", f"{option} must be {_CERTIFICATE}")
    certificate, key = files.cert_file, files.key_file
    if certificate is None:
        if key is not None:
            hint = "add cert_file=PATH, the certificate that belongs to this key"
            raise unfit("key_file", "needs a certificate", hint)
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=_ask)
    except _PassphraseWanted:
        where = "cert_file" if key is None else "key_file"
        hint = (
            "lockkit cannot ask for a passphrase; "
            "to write the key without one: openssl pkey -in FILE -out FILE2"
        )
        raise unfit(where, "has a key with a passphrase", hint) from None
    except ssl.SSLError as error:
        mismatch = "MISMATCH" in str(error)
        if key is None:
            what = "contains a key that does not belong to the certificate" if mismatch else "contains no key"
            raise unfit("cert_file", what, f"add key_file=PATH, {_KEY}") from None
        if mismatch:
            raise unfit(
                "key_file",
                "is not the key of cert_file",
                "name a certificate and a key that belong together",
            ) from None
        raise unfit("key_file", "is not a key", f"key_file must be {_KEY}") from None


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


def tls_context(files: Files, shown: str) -> ssl.SSLContext:
    """The context in which a client connects.

    Args:
        files: The TLS files of the client.
        shown: The URL without secrets, for the error.

    Raises:
        ConfigError: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
        if files.cert_file is not None:
            context.load_cert_chain(files.cert_file, files.key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(f"{shown}: {error}", hint="certificates and keys are PEM files") from None
    return context
