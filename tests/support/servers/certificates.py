"""A private certificate authority for one test server, and certificates for it and its clients."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.servers.programs import find_program

__all__ = ["Certificates"]

_EXTENSIONS = """
[req]
distinguished_name = nobody
[nobody]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
"""


class Certificates:
    """Good for a day, for 127.0.0.1 and localhost.

    Attributes:
        ca: What clients must trust, and what signs the others. All are paths of PEM files.
        server: With ``server_key``.
        client: With ``client_key``; its common name is ``lockkit-client``.
        nameless: With ``nameless_key``; a client's without a name, for the gateway of etcd with users.
    """

    def __init__(self, folder: Path) -> None:
        """Make all of them in a folder.

        Raises:
            ServerMissing: There is no ``openssl``.
        """
        self._openssl = find_program("openssl")
        self._folder = folder
        (folder / "openssl.cnf").write_text(_EXTENSIONS)
        self.ca, self.ca_key = self._make("ca", "/CN=lockkit-test-ca")
        self.server, self.server_key = self._make("server", "/CN=localhost")
        self.client, self.client_key = self._make("client", "/CN=lockkit-client")
        self.nameless, self.nameless_key = self._make("client", "/", file="nameless")

    def _make(self, kind: str, subject: str, file: str = "") -> tuple[Path, Path]:
        certificate, key = (self._folder / f"{file or kind}.{ending}" for ending in ("crt", "key"))
        signed = [] if kind == "ca" else ["-CA", str(self.ca), "-CAkey", str(self.ca_key)]
        subprocess.run(
            [
                *(
                    self._openssl,
                    "req",
                    "-x509",
                    "-config",
                    f"{self._folder}/openssl.cnf",
                    "-extensions",
                    kind,
                ),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"),
                *("-subj", subject, "-keyout", str(key), "-out", str(certificate), *signed),
            ],
            check=True,
            capture_output=True,
        )
        return certificate, key
