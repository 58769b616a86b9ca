"""CRC-32C: the twin and the compiled kernel give the values of the specification."""

import random
from types import ModuleType

import pytest

from tests.kernels import implementations, modules

KERNELS = modules("crc")


@pytest.fixture(params=implementations("crc"))
def crc(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_known_answers_of_rfc_3720(crc: ModuleType, data: bytes, expected: int) -> None:
    assert crc.crc32c(data) == expected


def test_continues_from_an_earlier_value(crc: ModuleType) -> None:
    data = random.Random(1).randbytes(20_000)
    whole = crc.crc32c(data)
    for cut in (0, 1, 7, 8, 9, 575, 576, 577, 6143, 6144, 6145, 19_999, 20_000):
        assert crc.crc32c(data[cut:], crc.crc32c(data[:cut])) == whole


def test_takes_any_contiguous_buffer(crc: ModuleType) -> None:
    data = random.Random(2).randbytes(1000)
    expected = crc.crc32c(data)
    assert crc.crc32c(bytearray(data)) == expected
    assert crc.crc32c(memoryview(data)) == expected
    assert crc.crc32c(memoryview(data).cast("Q")) == expected
    assert crc.crc32c(memoryview(b"x" + data + b"x")[1:-1]) == expected


def test_refuses_what_is_not_a_u32_or_no_buffer(crc: ModuleType) -> None:
    for value in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            crc.crc32c(b"x", value)
    with pytest.raises(TypeError):
        crc.crc32c("text")


@pytest.mark.skipif(len(KERNELS) < 2, reason="there is no compiled kernel to compare with")
def test_kernel_is_the_twin_at_every_block_boundary() -> None:
    pure, fast = KERNELS
    data = random.Random(3).randbytes(3 * 2048 * 2 + 3 * 192 + 17)
    sizes = [*range(40), *(k * 576 + d for k in range(12) for d in (-9, -1, 0, 1, 9)), len(data)]
    for size in (size for size in sizes if size >= 0):
        for start in (0, 1, 5):
            part = data[start : start + size]
            expected = pure.crc32c(part)
            assert fast.crc32c(part) == expected
            assert fast._by_table(part) == expected
