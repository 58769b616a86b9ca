"""What can be wrong with a request to one partition; every protocol maps these to its own codes."""

import enum


class Fault(enum.IntEnum):
    """Why a partition did not do what it was asked; 0 is never a fault."""

    UNKNOWN = 1
    """There is no such topic or partition."""
    NOT_LEADER = 2
    """Another node leads the partition, or nobody does now."""
    UNAVAILABLE = 3
    """It is not known whether it was done: the core that leads it is gone; ask again."""
    OUT_OF_RANGE = 4
    """The offset is below the log's start or above its end."""
    CORRUPT = 5
    """The batch's checksum or structure is wrong."""
    TOO_LARGE = 6
    """The batch is larger than the topic takes."""
    INVALID_RECORD = 7
    """The batch is well formed and not allowed here: a compacted topic needs keys, and so on."""
    INVALID_TIMESTAMP = 8
    """A timestamp is further from now than the topic allows."""
    OUT_OF_SEQUENCE = 9
    """An idempotent producer's batch does not follow the one before it."""
    DUPLICATE_SEQUENCE = 10
    """An idempotent producer's batch was appended longer ago than is remembered."""
    FENCED_PRODUCER = 11
    """The producer has a newer epoch."""
    INVALID_TRANSACTION = 12
    """The batch belongs to a transaction that this partition is not part of."""
    FENCED_LEADER_EPOCH = 13
    UNKNOWN_LEADER_EPOCH = 14
    FULL = 15
    """The disk is full, or fails: nothing is taken now."""
    UNSUPPORTED_COMPRESSION = 16
    NOT_ENOUGH_REPLICAS = 17
    NOT_AUTHORIZED = 18
    BUSY = 19
    """Too much waits already: ask again a little later."""
    INTERNAL = 20
