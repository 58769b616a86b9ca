"""What nodes of a cluster trust each other by: a shared secret, certificates, or both."""

import ipaddress
import ssl
from pathlib import Path
from typing import Final, NamedTuple

from robustmq.errors import ConfigError
from robustmq.net.certificates import load_authority, load_pair
from robustmq.settings.cluster import Cluster

SECRET_MIN: Final = 16
"""Characters of the shortest secret that is taken."""

_OTHERS: Final = 0o077


class Trust(NamedTuple):
    """The secret, b"" for none, and the TLS of both ends of a connection, None for none.

    With TLS both ends show a certificate of the cluster's authority; its names are not looked at.
    """

    secret: bytes = b""
    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None

    @property
    def is_closed(self) -> bool:
        """Say whether strangers are kept out."""
        return bool(self.secret) or self.server is not None

    def check_address(self, address: str, port: str) -> None:
        """Raise ConfigError when nobody may be listened for on `address`, configured as `port`."""
        if not self.is_closed and not ipaddress.ip_address(address).is_loopback:
            raise ConfigError(
                f"{port} is not opened on {address}: whoever reaches it would belong to the "
                "cluster; set cluster.secret, or cluster.tls_cert, tls_key and tls_ca"
            )


def read_trust(settings: Cluster) -> Trust:
    """Read what the configuration names; raises ConfigError in a sentence."""
    secret = _secret(settings)
    names = (settings.tls_cert, settings.tls_key, settings.tls_ca)
    if not any(names):
        return Trust(secret)
    if not all(names):
        raise ConfigError(
            "of cluster.tls_cert, cluster.tls_key and cluster.tls_ca some are set and some are "
            "not; TLS between nodes needs all three"
        )
    return Trust(
        secret,
        _context(settings, ssl.PROTOCOL_TLS_SERVER),
        _context(settings, ssl.PROTOCOL_TLS_CLIENT),
    )


def _secret(settings: Cluster) -> bytes:
    secret = settings.secret
    if settings.secret_file:
        if secret:
            raise ConfigError("cluster.secret and cluster.secret_file are both set; remove one")
        path = Path(settings.secret_file)
        try:
            mode = path.stat().st_mode
            secret = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"cluster.secret_file {path} cannot be read: {error}") from error
        if mode & _OTHERS:
            raise ConfigError(
                f"cluster.secret_file {path} can be read by others (mode {mode & 0o777:04o}); "
                f"chmod 600 {path}"
            )
    if (secret or settings.secret_file) and len(secret) < SECRET_MIN:
        raise ConfigError(
            f"the secret of the cluster has {len(secret)} characters, fewer than {SECRET_MIN}; "
            "take a longer one, such as that of: openssl rand -hex 32"
        )
    return secret.encode()


def _context(settings: Cluster, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_pair(context, settings.tls_cert, settings.tls_key)
    load_authority(context, settings.tls_ca)
    return context
