"""CRC-32C, compiled where possible: the checksum of record batches and segment files."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.crc import crc32c
else:
    from robustmq._kernel.pure.crc import crc32c

__all__ = ["crc32c"]
