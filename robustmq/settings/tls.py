"""The configuration of TLS for MQTT: `[mqtt_runtime.tls]`."""

from typing import Annotated, Literal

from msgspec import Struct

from robustmq.settings.bounds import between


class MqttTls(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.tls]`: Certificates and what else TLS needs (tls, wss, quic).

    A key that others than its owner may read, a certificate that has expired and one that does
    not go with its key are refused at the start. Files that change later are read again, without
    a connection lost, as they are at SIGHUP; if they cannot be used, the old ones stay.

    tls_cert: PEM files of certificates, each with its chain, the default one first; a client that
        names a server (SNI) gets the one with that name. Without any, no listener with TLS opens.
    tls_key: PEM files of their private keys, unencrypted, in the same order.
    min_version: The lowest version of TLS that is spoken: 1.2 or 1.3.
    ciphers: Ciphers of TLS 1.2 as OpenSSL writes them; "": those that Python considers safe.
    verify: Certificates of clients: none: not asked for; optional: checked when a client shows
        one; required: a client without one is refused.
    ca_file: PEM file of the authorities that clients' certificates come from.
    crl_file: PEM file of the lists of certificates that they have revoked; "": none.
    user_from: What names a client's user in its certificate: none, common_name, or the first
        dns, email or uri of the alternative names.
    check_interval_ms: Milliseconds between two looks whether the files have changed.
    max_handshakes: Handshakes that one worker has under way; who comes beyond that is refused.
    """

    tls_cert: tuple[str, ...] = ()
    tls_key: tuple[str, ...] = ()
    min_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str = ""
    verify: Literal["none", "optional", "required"] = "none"
    ca_file: str = ""
    crl_file: str = ""
    user_from: Literal["none", "common_name", "dns", "email", "uri"] = "none"
    check_interval_ms: Annotated[int, between(100, 86_400_000)] = 5_000
    max_handshakes: Annotated[int, between(1, 1_000_000)] = 2_000
