"""The server's certificates: read and checked, made into TLS contexts, and renewed in place."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from robustmq.errors import ConfigError
from robustmq.settings.tls import MqttTls

_OTHERS: Final = 0o077
_VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, by their files, and the names that it is for, in lower case."""

    cert: str
    key: str
    names: tuple[str, ...]


class Certificates:
    """What every TLS connection of a process begins with: `context`, and those chosen by SNI.

    Made before the fork, so that a session that one worker began can be resumed at any other:
    they share the keys of the tickets, which a renewed certificate leaves alone. When the
    authorities change, the contexts and the keys of tickets are new.

    Raises ConfigError in a sentence when the files cannot be used.
    """

    def __init__(self, settings: MqttTls) -> None:
        self._settings = settings
        self._seen = self._found = self._signature(self._files())
        self._trust = self._signature(self._trust_files())
        self._pairs = self._read()
        self._contexts = [self._make(pair) for pair in self._pairs]
        self._by_name = self._named()

    @property
    def context(self) -> ssl.SSLContext:
        """The context of a client that names no server, or one that is not known."""
        return self._contexts[0]

    @property
    def files(self) -> tuple[Pair, ...]:
        """The certificates in use, the default one first."""
        return self._pairs

    def renew(self, *, at_once: bool = False) -> bool:
        """Read files that have changed; False when none has, ConfigError when the old ones stay.

        What is wrong is said once, until the files change again. Unless `at_once`, they are read
        when two looks have found them the same: they may be replaced one after the other.
        """
        seen = self._signature(self._files())
        if seen == self._seen:
            return False
        if seen != self._found and not at_once:
            self._found = seen
            return False
        self._seen = seen
        pairs = self._read()
        made = [self._make(pair) for pair in pairs]
        trust = self._signature(self._trust_files())
        if trust != self._trust:
            self._trust = trust
            self._contexts = made
        else:
            for pair, context in zip(pairs, self._contexts, strict=True):
                _load(context, pair)
        self._pairs = pairs
        self._by_name = self._named()
        return True

    # ------------------------------------------------------------------ reading

    def _files(self) -> list[str]:
        settings = self._settings
        return [*settings.tls_cert, *settings.tls_key, *self._trust_files()]

    def _trust_files(self) -> list[str]:
        return [name for name in (self._settings.ca_file, self._settings.crl_file) if name]

    def _signature(self, files: list[str]) -> list[tuple[int, int, int] | None]:
        return [_signature(Path(name)) for name in files]

    def _read(self) -> tuple[Pair, ...]:
        settings = self._settings
        if len(settings.tls_cert) != len(settings.tls_key):
            raise ConfigError(
                f"mqtt_runtime.tls has {len(settings.tls_cert)} tls_cert and "
                f"{len(settings.tls_key)} tls_key; each certificate needs its key"
            )
        if settings.verify != "none" and not settings.ca_file:
            raise ConfigError(
                f'mqtt_runtime.tls.verify is "{settings.verify}", but there is no ca_file to '
                "check certificates of clients against"
            )
        return tuple(
            _read_pair(cert, key)
            for cert, key in zip(settings.tls_cert, settings.tls_key, strict=True)
        )

    def _make(self, pair: Pair) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[settings.min_version]
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        if settings.ciphers:
            try:
                context.set_ciphers(settings.ciphers)
            except ssl.SSLError as error:
                raise ConfigError(
                    f'mqtt_runtime.tls.ciphers: OpenSSL knows no cipher of "{settings.ciphers}"'
                ) from error
        _load(context, pair)
        context.verify_mode = _VERIFY[settings.verify]
        if settings.verify != "none":
            for name in self._trust_files():
                load_authority(context, name)
            if settings.crl_file:
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.sni_callback = self._choose
        return context

    # ------------------------------------------------------------------ server names

    def _named(self) -> dict[str, ssl.SSLContext]:
        named: dict[str, ssl.SSLContext] = {}
        for pair, context in zip(self._pairs, self._contexts, strict=True):
            for name in pair.names:
                named.setdefault(name, context)
        return named

    def _choose(
        self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext
    ) -> None:
        """Give a client the certificate of the server that it names (RFC 6066 3)."""
        if name is None:
            return
        name = name.lower()
        found = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if found is not None and found is not connection.context:
            connection.context = found


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_pair(cert: str, key: str) -> Pair:
    try:
        mode = Path(key).stat().st_mode
        certificate = x509.load_pem_x509_certificates(Path(cert).read_bytes())[0]
    except OSError as error:
        raise ConfigError(f"the file {error.filename} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{cert} holds no certificate in PEM: {error}") from error
    if mode & _OTHERS:
        raise ConfigError(
            f"the private key {key} can be read by others (mode {mode & 0o777:04o}); "
            f"chmod 600 {key}"
        )
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc < now:
        raise ConfigError(
            f"the certificate {cert} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}; "
            "renew it"
        )
    if certificate.not_valid_before_utc > now:
        raise ConfigError(
            f"the certificate {cert} is valid only from "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
        )
    return Pair(cert, key, tuple(_names(certificate)))


def _names(certificate: x509.Certificate) -> Iterator[str]:
    """Yield the names of servers that a certificate is for (RFC 6125 6.4)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
            yield str(attribute.value).lower()
    else:
        for name in names.value.get_values_for_type(x509.DNSName):
            yield name.lower()


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(pair.cert, pair.key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"the private key {pair.key} is not that of the certificate {pair.cert}"
        else:
            reason = f"{pair.key} holds no unencrypted private key in PEM that fits {pair.cert}"
        raise ConfigError(reason) from error
    except OSError as error:
        raise ConfigError(f"{pair.cert} or {pair.key} cannot be read: {error.strerror}") from error


def load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Let a context show a certificate; ConfigError when it or its key cannot be used."""
    _load(context, _read_pair(cert, key))


def load_authority(context: ssl.SSLContext, name: str) -> None:
    """Let a context trust the certificates or heed the lists in a file; raises ConfigError."""
    try:
        context.load_verify_locations(name)
    except ssl.SSLError as error:
        raise ConfigError(f"{name} holds no certificates or revocation lists in PEM") from error
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error
