"""The data types of MQTT's wire format: integers, strings and binary data, both ways."""

from typing import Final

from robustmq.errors import ProtocolError
from robustmq.mqtt.reasons import Reason

MAX_VARINT: Final = 268_435_455
"""The largest variable byte integer, and so the longest body of a packet (MQTT5 1.5.5)."""

MAX_LENGTH: Final = 65_535
"""The longest string or binary data in bytes (MQTT5 1.5.4, 1.5.6)."""


class Truncated(ProtocolError):
    """A field reaches beyond the end of what it is in."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.MALFORMED_PACKET, detail)


def malformed(detail: str) -> ProtocolError:
    """Return the error for bytes that cannot be a packet (MQTT5 4.13.1)."""
    return ProtocolError(Reason.MALFORMED_PACKET, detail)


def text_of(data: bytes, what: str) -> str:
    """Decode a UTF-8 string (MQTT5 1.5.4).

    Raises ProtocolError 0x81 for ill-formed UTF-8, which includes surrogates, and for U+0000.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise malformed(f"The {what} is not UTF-8.") from None
    if "\0" in text:
        raise malformed(f"The {what} contains U+0000.")
    return text


class Reader:
    """Reads fields from `data[at:end]`, in order; every method raises Truncated at the end."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def take(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes."""
        start = self.at
        stop = start + size
        if stop > self.end:
            raise Truncated(f"The {what} is truncated.")
        self.at = stop
        return self.data[start:stop]

    def rest(self) -> bytes:
        """Return all that is left, possibly nothing."""
        start = self.at
        self.at = self.end
        return self.data[start : self.end]

    def byte(self, what: str) -> int:
        """Return one byte (MQTT5 1.5.1)."""
        at = self.at
        if at >= self.end:
            raise Truncated(f"The {what} is missing.")
        self.at = at + 1
        return self.data[at]

    def two(self, what: str) -> int:
        """Return a two byte integer (MQTT5 1.5.2)."""
        return int.from_bytes(self.take(2, what), "big")

    def four(self, what: str) -> int:
        """Return a four byte integer (MQTT5 1.5.3)."""
        return int.from_bytes(self.take(4, what), "big")

    def varint(self, what: str, *, shortest: bool = True) -> int:
        """Return a variable byte integer of at most four bytes (MQTT5 1.5.5).

        Raises ProtocolError 0x81 for a fifth byte and, with `shortest`, for one that is longer
        than it needs to be ([MQTT-1.5.5-1]). MQTT 3 does not forbid that in a fixed header,
        which is read before the version is known.
        """
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shortest and shift and not byte:
                    raise malformed(f"The {what} is not in its shortest form.")
                return value
        raise malformed(f"The {what} is longer than four bytes.")

    def binary(self, what: str) -> bytes:
        """Return binary data with a two byte length (MQTT5 1.5.6)."""
        return self.take(self.two(what), what)

    def text(self, what: str) -> str:
        """Return a UTF-8 string with a two byte length (MQTT5 1.5.4)."""
        return text_of(self.binary(what), what)

    def finish(self, what: str) -> None:
        """Raise ProtocolError 0x81 when bytes are left over."""
        if self.at != self.end:
            raise malformed(f"{self.end - self.at} bytes follow the end of the {what}.")


def varint(value: int) -> bytes:
    """Encode a variable byte integer (MQTT5 1.5.5); ValueError beyond 268,435,455."""
    if 0 <= value < 0x80:
        return bytes((value,))
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"{value} does not fit in a variable byte integer")
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(0x80 | (value & 0x7F))
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def binary(data: bytes) -> bytes:
    """Encode binary data (MQTT5 1.5.6); ValueError beyond 65,535 bytes."""
    if len(data) > MAX_LENGTH:
        raise ValueError(f"{len(data)} bytes do not fit in a field of {MAX_LENGTH}")
    return len(data).to_bytes(2, "big") + data


def text(value: str) -> bytes:
    """Encode a UTF-8 string (MQTT5 1.5.4); ValueError beyond 65,535 bytes."""
    return binary(value.encode())
