"""TLS handshakes that failed: the meaning of OpenSSL's error texts, for failures that would recur."""

from __future__ import annotations

from lockkit.errors import BackendUnavailable, ConfigError, LockkitError, PermissionDenied

__all__ = ["handshake_error", "trust_hint"]

_UNVERIFIED = "CERTIFICATE_VERIFY_FAILED"
_NO_CERTIFICATE = ("ALERT_CERTIFICATE_REQUIRED",)
_NOT_ACCEPTED = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
)
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def handshake_error(text: str, where: str, *, ca_file: bool, signer: str, plain: str) -> LockkitError | None:
    """The error for a handshake that would fail again; None if another try may help, or for other texts.

    Args:
        text: OpenSSL's error text.
        where: The server, for the error.
        ca_file: True if the URL has the option ``ca_file``.
        signer: The hint if the server does not accept the client's certificate: which authority must sign it.
        plain: The hint if the server does not use TLS: how to write the URL without TLS.
    """
    if _UNVERIFIED in text:
        return BackendUnavailable(f"cannot trust {where}: {text}", hint=trust_hint(text, ca_file=ca_file))
    if any(words in text for words in _NO_CERTIFICATE):
        hint = "add cert_file=PATH&key_file=PATH"
        return PermissionDenied(f"{where}: the server requires a client certificate", hint=hint)
    if any(words in text for words in _NOT_ACCEPTED):
        return PermissionDenied(
            f"{where}: the server does not accept the certificate in cert_file", hint=signer
        )
    if any(words in text for words in _NO_TLS):
        return ConfigError(f"{where}: the server does not speak TLS", hint=f"{plain}; or check the port")
    return None


def trust_hint(text: str, *, ca_file: bool) -> str:
    """The hint if a server's certificate cannot be verified, by OpenSSL's error text."""
    if "mismatch" in text:
        return (
            "write the host name as in the server's certificate, "
            "or give the server a certificate for this name"
        )
    if "expired" in text:
        return "the server needs a new certificate"
    if ca_file:
        return "?ca_file= names an authority that has not signed the server's certificate"
    return "write ?ca_file=PATH: the PEM file of the authority that has signed the server's certificate"
