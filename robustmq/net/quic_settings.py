"""What every connection of a QUIC server begins with: certificate, key, windows and time-outs."""

from aioquic.quic.configuration import QuicConfiguration

from robustmq.settings.quic import MqttQuic

ALPN = "mqtt"
"""The protocol that clients have to ask for."""


def configuration(settings: MqttQuic, cert: str, key: str) -> QuicConfiguration:
    """Return aioquic's configuration with the certificate chain and the key in two PEM files.

    Raises OSError or ValueError when they cannot be read.
    """
    made = QuicConfiguration(
        is_client=False,
        alpn_protocols=[ALPN],
        idle_timeout=settings.idle_timeout_ms / 1_000,
        max_data=settings.connection_window_bytes,
        max_stream_data=settings.stream_window_bytes,
        max_datagram_size=settings.max_datagram_bytes,
    )
    made.load_cert_chain(cert, key)
    return made
