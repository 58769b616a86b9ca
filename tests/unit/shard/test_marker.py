"""Markers: as clients of Kafka read them."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatch

from robustmq.errors import Corrupt
from robustmq.shard.marker import Mark, control_batch, read_mark
from tests.produced import produced


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_marker_is_what_clients_know(is_committed: bool) -> None:
    batch = control_batch(7, 3, Mark(is_committed, 12), 1_000)
    theirs = DefaultRecordBatch(bytearray(batch))
    assert theirs.validate_crc()
    assert theirs.is_control_batch
    assert theirs.is_transactional
    assert (theirs.producer_id, theirs.producer_epoch) == (7, 3)
    (control,) = list(theirs)
    assert control.key == (b"\0\0\0\1" if is_committed else b"\0\0\0\0")
    assert (control.value, control.timestamp) == (b"\0\0\0\0\0\x0c", 1_000)
    assert read_mark(batch) == Mark(is_committed, 12)


def test_another_control_batch_is_none_and_a_cut_one_corrupt() -> None:
    assert read_mark(produced(b"\0" * 6, key=b"\0\0\0\2")) is None
    for batch in (produced(b"\0" * 6, key=b"\0"), produced(None), produced(b"\0", key=None)):
        with pytest.raises(Corrupt, match="cut"):
            read_mark(batch)
