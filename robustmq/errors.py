"""Who is to blame: the peer, nobody (we refuse), the disk, or the administrator's input."""

import enum

import msgspec


class ProtocolError(Exception):
    """The peer broke its protocol's rules; its connection ends with `reason`.

    `reason` is the protocol's own code (MQTT5 2.4 for MQTT), `detail` a sentence for the log
    and, where the protocol has room for it, for the peer.
    """

    def __init__(self, reason: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Refusal(enum.IntEnum):
    """Why the broker said no; every protocol maps these to its own codes in one table."""

    NOT_AUTHORIZED = 1
    QUOTA_EXCEEDED = 2
    TOPIC_INVALID = 3
    TOO_LARGE = 4
    UNAVAILABLE = 5
    BUSY = 6
    PAYLOAD_INVALID = 7
    INTERNAL = 8
    BAD_CREDENTIALS = 9
    BANNED = 10
    RATE_EXCEEDED = 11
    CONFLICT = 12
    """Somebody else has changed meanwhile what was to be changed."""


class Refused(msgspec.Struct, frozen=True):
    """A refusal as a value: passed to `reply`, never raised across a boundary."""

    code: Refusal
    detail: str


class Corrupt(Exception):
    """A checksum or a structure on disk or in shared memory is wrong; `where` says which."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class ConfigError(Exception):
    """The configuration cannot be used; the message says what, why and what to do."""
