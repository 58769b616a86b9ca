"""A certificate authority for development and tests: `python -m tests.authority <directory>`.

It makes, as NAME.pem and NAME.key: ca, server (localhost), other (other.example,
*.wild.example), client (alice), revoked and expired, which ca's crl.pem and the time make
worthless, and stranger, which nobody has signed.
"""

import ipaddress
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
VALID = 90 * DAY
RENEW = 30 * DAY

Name = x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier | x509.IPAddress

SERVER: Sequence[Name] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)
OTHER: Sequence[Name] = (x509.DNSName("other.example"), x509.DNSName("*.wild.example"))
CLIENT: Sequence[Name] = (
    x509.RFC822Name("alice@example.com"),
    x509.UniformResourceIdentifier("urn:device:alice"),
    x509.DNSName("alice.example"),
)


class Identity(NamedTuple):
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """Signs what its directory needs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = datetime.now(UTC)
        directory.mkdir(parents=True, exist_ok=True)
        self.identity = self._made("ca") or self.issue("ca", "robustmq development", ())

    def complete(self) -> None:
        """Make what is missing."""
        for name, common, names in (
            ("server", "localhost", SERVER),
            ("other", "other.example", OTHER),
            ("client", "alice", CLIENT),
            ("revoked", "mallory", ()),
        ):
            if self._made(name) is None:
                self.issue(name, common, names)
        if not (self.directory / "expired.pem").exists():
            self.issue("expired", "localhost", SERVER, until=self.now - DAY)
        if not (self.directory / "stranger.pem").exists():
            self.issue("stranger", "stranger", (), signed=False)
        if not (self.directory / "crl.pem").exists():
            self.revoke()

    def issue(
        self,
        name: str,
        common: str,
        names: Sequence[Name],
        *,
        until: datetime | None = None,
        signed: bool = True,
    ) -> Identity:
        """Make and write a key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        is_ca = name == "ca"
        alone = is_ca or not signed
        issuer = own if alone else self.identity.certificate.subject
        end = until or self.now + VALID * (10 if is_ca else 1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(own)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(self.now, end) - DAY)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        # Newer clients insist on who signed it being said (RFC 5280 4.2.1.1).
        signer = key if alone else self.identity.key
        for extension in (
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
        ):
            builder = builder.add_extension(extension, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = Identity(builder.sign(signer, hashes.SHA256()), key)
        self._write(f"{name}.pem", made.certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._write(f"{name}.key", private)
        return made

    def revoke(self) -> None:
        """Write the list of what was revoked."""
        revoked = self._made("revoked")
        assert revoked is not None
        row = (
            x509.RevokedCertificateBuilder()
            .serial_number(revoked.certificate.serial_number)
            .revocation_date(self.now)
            .build()
        )
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.identity.certificate.subject)
            .last_update(self.now - DAY)
            .next_update(self.now + VALID * 10)
            .add_revoked_certificate(row)
            .sign(self.identity.key, hashes.SHA256())
        )
        self._write("crl.pem", crl.public_bytes(serialization.Encoding.PEM))

    def _made(self, name: str) -> Identity | None:
        """Return what is there and good for a while."""
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        if not all(path.exists() for path in paths):
            return None
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        key = serialization.load_pem_private_key(paths[1].read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        if certificate.not_valid_after_utc < self.now + RENEW:
            return None
        return Identity(certificate, key)

    def _write(self, name: str, data: bytes) -> None:
        """Replace a file at once, readable for its owner only."""
        path = self.directory / name
        part = path.with_suffix(f".{os.getpid()}")
        part.touch(mode=0o600)
        part.write_bytes(data)
        part.replace(path)


def made(directory: Path) -> Path:
    """Make all that is missing in a directory; return it."""
    Authority(directory).complete()
    return directory


if __name__ == "__main__":
    made(Path(sys.argv[1]))
