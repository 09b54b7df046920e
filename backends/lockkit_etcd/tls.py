"""TLS: the certificates that a URL names."""

from __future__ import annotations

import ssl

from lockkit.errors import ConfigError
from lockkit_etcd.address import Address

__all__ = ["tls_context"]


def tls_context(address: Address) -> ssl.SSLContext | None:
    """The context in which to connect; None without TLS.

    Raises:
        ConfigError: A certificate or key cannot be used.
    """
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file and address.key_file:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(f"{address.shown}: {error}", hint="certificates and keys are PEM files") from None
    return context
