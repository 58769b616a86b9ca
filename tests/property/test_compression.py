"""Compression: what goes in comes out, and no bytes break more than themselves."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.message.compression import Codec, compressed, decompress, decompressed

CODECS = st.sampled_from([codec for codec in Codec if codec is not Codec.NONE])
HEADS = {Codec.SNAPPY: b"\x82SNAPPY\0\0\0\0\1\0\0\0\1", Codec.ZSTD: b"\x28\xb5\x2f\xfd"}


@given(codec=CODECS, records=st.binary(max_size=5_000), times=st.integers(1, 20))
def test_what_goes_in_comes_out(codec: Codec, records: bytes, times: int) -> None:
    plain = compressed(bytes(61) + records * times, Codec.NONE)
    small = compressed(plain, codec)
    again = decompressed(small, len(plain))
    assert again[61:] == plain[61:]
    assert compressed(again, codec) == small


@given(
    codec=CODECS,
    data=st.binary(max_size=300),
    headed=st.booleans(),
    damage=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=4),
)
def test_no_bytes_give_more_than_the_bound(
    codec: Codec, data: bytes, headed: bool, damage: list[tuple[int, int]]
) -> None:
    made = bytearray(compressed(bytes(61) + data * 5, codec)[61:])
    for at, byte in damage:
        made[at % len(made)] = byte
    for each in (bytes(made), HEADS.get(codec, b"") + data if headed else data):
        with suppress(Corrupt):
            assert len(decompress(each, codec, 400)) <= 400
