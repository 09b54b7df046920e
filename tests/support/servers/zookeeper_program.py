"""The parts of a ZooKeeper server: Java, the jars, and the files for TLS and for logins."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from lockkit.testing.processes import installed
from support.servers.certificates import Certificates
from support.servers.programs import find_program

__all__ = ["SUPER", "java_command", "login_file", "tls_lines", "zookeeper_installed"]

# The manifest of the first names the others it needs, but for those of TLS; without a logger it is silent.
JARS = [Path("/usr/share/java") / f"{name}.jar" for name in ("zookeeper", "slf4j-simple")]
TLS_JARS = [Path("/usr/share/java") / f"netty-{name}.jar" for name in ("codec", "resolver")]
# It is to start fast and stay small; how fast it gets after minutes is of no use to a test.
JAVA = ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"]
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

SUPER = "super:kit"
"""The login that may do everything, past every ACL: ``add_auth("digest", SUPER)``."""


def zookeeper_installed() -> bool:
    """Whether Debian's ``zookeeper`` and a Java are there."""
    return installed("java") and all(jar.exists() for jar in JARS)


def java_command(folder: Path, config: Path, properties: Mapping[str, object]) -> list[str]:
    """The command that starts a server with a configuration file; the server's own files go to the folder.

    Raises:
        ServerMissing: There is no Java.
    """
    properties = {
        "znode.container.checkIntervalMs": 100,
        "zookeeper.DigestAuthenticationProvider.superDigest": _digest(SUPER),
        "java.net.preferIPv4Stack": "true",
        "java.io.tmpdir": folder,
        "org.slf4j.simpleLogger.showDateTime": "true",
        "org.slf4j.simpleLogger.dateTimeFormat": "HH:mm:ss.SSS",
        **properties,
    }
    return [
        find_program("java"),
        *JAVA,
        *(f"-D{key}={value}" for key, value in properties.items()),
        *("-cp", ":".join(str(jar) for jar in JARS + TLS_JARS), MAIN, str(config)),
    ]


def tls_lines(folder: Path, mine: Certificates, *, port: int, client_certificates: bool) -> dict[str, object]:
    """The configuration of TLS; the server's certificate and key go into one file, as Java wants them."""
    both = folder / "server.pem"
    both.write_bytes(mine.server.read_bytes() + mine.server_key.read_bytes())
    return {
        "secureClientPort": port,
        "secureClientPortAddress": "127.0.0.1",
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.location": both,
        "ssl.keyStore.type": "PEM",
        "ssl.trustStore.location": mine.ca,
        "ssl.trustStore.type": "PEM",
        "ssl.clientAuth": "need" if client_certificates else "none",
    }


def login_file(folder: Path, users: Mapping[str, str]) -> Path:
    """Names and passwords for SASL, in the language of JAAS."""
    file = folder / "jaas.conf"
    entries = "\n".join(f'    user_{name}="{password}"' for name, password in users.items())
    file.write_text(
        f"Server {{\n    org.apache.zookeeper.server.auth.DigestLoginModule required\n{entries};\n}};\n"
    )
    return file


def _digest(login: str) -> str:
    name = login.partition(":")[0]
    hashed = hashlib.sha1(login.encode(), usedforsecurity=False)  # ZooKeeper's own way
    return f"{name}:{base64.b64encode(hashed.digest()).decode()}"
