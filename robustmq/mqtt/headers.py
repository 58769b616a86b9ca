"""The properties of a message as record headers, and back: what other protocols see of MQTT 5.

User properties are headers of the same name; the others are called `mqtt.*`. A user property
that is called so itself gets the prefix `mqtt.user.`.
"""

from typing import Final

from robustmq.message.crossing import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    PAYLOAD_FORMAT,
    RESERVED,
    RESPONSE_TOPIC,
    USER,
)
from robustmq.message.record import (
    CLIENT,
    EXPIRES_AT,
    NO_HEADERS,
    PUBLISHER,
    header_block,
    read_headers,
)
from robustmq.mqtt.packets import V5, Properties

_EXPIRY_ID: Final = b"\x02\0\0\0\0"
_TEXT_IDS: Final = {CONTENT_TYPE: b"\x03", RESPONSE_TOPIC: b"\x08", CORRELATION_DATA: b"\x09"}


def to_headers(
    properties: Properties | None,
    now_ms: int,
    max_expiry_s: int,
    publisher: int,
    client_id: str = "",
) -> bytes:
    """The header block of a PUBLISH or will with these properties.

    `max_expiry_s` caps the message expiry interval (0: no cap); `publisher` is the key of the
    publishing session when some subscription of its own has no local, else 0; `client_id` is the
    client's where shared groups choose by it.
    """
    headers: list[tuple[bytes, bytes | None]] = []
    expiry = properties.message_expiry_interval if properties is not None else None
    if max_expiry_s and (expiry is None or expiry > max_expiry_s):
        expiry = max_expiry_s
    if expiry is not None:
        headers.append((EXPIRES_AT, (now_ms + expiry * 1_000).to_bytes(8, "big")))
    if publisher:
        headers.append((PUBLISHER, publisher.to_bytes(8, "big")))
    if client_id:
        headers.append((CLIENT, client_id.encode()))
    if properties is not None:
        if properties.payload_format is not None:
            headers.append((PAYLOAD_FORMAT, bytes((properties.payload_format,))))
        if properties.content_type is not None:
            headers.append((CONTENT_TYPE, properties.content_type.encode()))
        if properties.response_topic is not None:
            headers.append((RESPONSE_TOPIC, properties.response_topic.encode()))
        if properties.correlation_data is not None:
            headers.append((CORRELATION_DATA, properties.correlation_data))
        for name, value in properties.user_properties:
            encoded = name.encode()
            if encoded.startswith(RESERVED):
                encoded = USER + encoded
            headers.append((encoded, value.encode()))
    return header_block(headers) if headers else NO_HEADERS


def describe(headers: bytes, version: int) -> tuple[bytes, int, int]:
    """`(properties, deadline, publisher)` of a record with this header block.

    The properties are those of a PUBLISH (MQTT5 3.3.2.3), encoded without their length; the
    message expiry interval comes first and is 0, to be filled in when the packet is sent.
    MQTT 3 has none. The deadline is in ms since 1970, 0 for never; the publisher is a session
    key or 0. Headers of other protocols that are not UTF-8 are left out.
    """
    parts: list[bytes] = []
    deadline = publisher = 0
    for name, value in read_headers(headers):
        if value is None:
            continue
        if name == EXPIRES_AT:
            deadline = int.from_bytes(value, "big")
        elif name == PUBLISHER:
            publisher = int.from_bytes(value, "big")
        elif version < V5 or name == CLIENT:
            continue
        elif name == PAYLOAD_FORMAT:
            parts.append(b"\x01" + value[:1])
        elif name in _TEXT_IDS:
            parts += (_TEXT_IDS[name], len(value).to_bytes(2, "big"), value)
        else:
            parts.append(_user_property(name.removeprefix(USER), value))
    if deadline and version == V5:
        parts.insert(0, _EXPIRY_ID)
    return b"".join(parts), deadline, publisher


def _user_property(name: bytes, value: bytes) -> bytes:
    try:
        name.decode()
        value.decode()
    except UnicodeDecodeError:
        return b""
    if len(name) > 0xFFFF or len(value) > 0xFFFF:
        return b""
    return b"".join(
        (b"\x26", len(name).to_bytes(2, "big"), name, len(value).to_bytes(2, "big"), value)
    )
