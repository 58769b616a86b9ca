"""The byte ring: one test suite for the compiled kernel and its twin."""

import mmap
import struct
from types import ModuleType

import pytest

from robustmq._kernel.ring import Ring
from robustmq.errors import Corrupt
from tests.kernels import implementations, modules

SIZE = 192 + 256
HEAD, SLEEPING, DATA = 64, 128, 192


@pytest.fixture(params=implementations("ring"))
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture
def memory() -> mmap.mmap:
    return mmap.mmap(-1, 8192)


@pytest.fixture
def ring(kernel: ModuleType, memory: mmap.mmap) -> Ring:
    made: Ring = kernel.Ring(memory, 0, SIZE)
    return made


def word(memory: mmap.mmap, offset: int) -> int:
    return int(struct.unpack_from("=Q", memory, offset)[0])


def test_zeroed_memory_is_an_empty_ring(ring: Ring) -> None:
    assert ring.capacity == 256
    assert (ring.used(), ring.free()) == (0, 256)
    assert ring.pull(1000) == []


def test_gives_frames_back_in_order_with_their_marks(ring: Ring) -> None:
    frames: list[bytes | bytearray | memoryview]
    frames = [b"", b"a", bytearray(b"12345678"), memoryview(b"xyz")[1:]]
    assert ring.push(frames, stamp=1 << 63 | 5, kinds=b"\x02\x02\x02\x02") == 4
    assert ring.used() == 16 + 24 + 24 + 24
    assert ring.pull(1000) == [bytes(frame) for frame in frames]
    assert (ring.stamp, ring.kind, ring.taken) == (1 << 63 | 5, 2, 88)
    assert ring.used() == 0


def test_accepts_any_sequence(ring: Ring) -> None:
    assert ring.push((b"a", b"b")) == 2
    assert ring.push([]) == 0
    assert ring.pull(1000) == [b"a", b"b"]


def test_pushes_as_many_whole_frames_as_fit(ring: Ring) -> None:
    assert ring.push([bytes(100)] * 3) == 2
    assert ring.free() == 256 - 2 * 120
    assert ring.push([b"12345678"]) == 0
    assert ring.push([b""]) == 1
    assert ring.free() == 0
    assert ring.pull(1000) == [bytes(100), bytes(100), b""]


def test_wraps_around_at_every_place(kernel: ModuleType, memory: mmap.mmap) -> None:
    ring = kernel.Ring(memory, 0, 192 + 136)
    for n in range(500):
        frame = bytes([n & 255]) * (n % 90)
        assert ring.push([frame, b"end"], stamp=n) == 2
        assert ring.pull(1000) == [frame, b"end"]
        assert ring.stamp == n


def test_uses_a_ring_to_its_last_byte(ring: Ring) -> None:
    frame = bytes(range(240))
    for _ in range(40):
        assert ring.push([frame]) == 1
        assert ring.free() == 0
        assert ring.push([b""]) == 0
        assert ring.pull(0) == [frame]
        ring.push([b"step"])
        ring.pull(0)


def test_refuses_a_frame_that_never_fits(ring: Ring) -> None:
    with pytest.raises(ValueError, match="241 bytes"):
        ring.push([bytes(241)])
    assert ring.push([b"first", bytes(241)]) == 1
    assert ring.pull(1000) == [b"first"]


def test_refuses_fewer_kinds_than_frames(ring: Ring) -> None:
    with pytest.raises(ValueError, match="fewer kinds"):
        ring.push([b"a", b"b"], kinds=b"\x01")
    assert ring.used() == 0


def test_a_pull_ends_at_its_limit_but_takes_one_frame(ring: Ring) -> None:
    ring.push([b"12345678"] * 5)
    assert len(ring.pull(0)) == 1
    assert len(ring.pull(47)) == 1
    assert len(ring.pull(48)) == 2
    assert ring.taken == 48
    assert ring.used() == 24


def test_a_pull_ends_where_the_marks_change(ring: Ring) -> None:
    ring.push([b"a", b"b"], stamp=1)
    ring.push([b"c", b"d"], stamp=2, kinds=b"\x00\x01")
    assert ring.pull(1000, only=2) == []
    assert ring.taken == 0
    assert ring.pull(1000, only=1) == [b"a", b"b"]
    assert ring.pull(1000) == [b"c"]
    assert (ring.stamp, ring.kind) == (2, 0)
    assert ring.pull(1000) == [b"d"]
    assert (ring.stamp, ring.kind) == (2, 1)


def test_publishes_with_the_tail_alone(ring: Ring, memory: mmap.mmap) -> None:
    ring.push([b"seen", b"hidden"])
    struct.pack_into("=Q", memory, 0, 24)
    assert ring.pull(1000) == [b"seen"]


def test_a_new_object_goes_on_where_the_other_one_stopped(
    kernel: ModuleType, memory: mmap.mmap
) -> None:
    first = kernel.Ring(memory, 4096, SIZE)
    first.push([b"a", b"b", b"c"])
    first.pull(0)
    second = kernel.Ring(memory, 4096, SIZE)
    second.push([b"d"])
    assert second.pull(1000) == [b"b", b"c", b"d"]


def test_a_sleeper_is_rung_once(ring: Ring) -> None:
    assert ring.sleep() is True
    ring.push([b"a"])
    assert ring.wants_bell() is True
    assert ring.sleep() is False
    assert ring.pull(1000) == [b"a"]


def test_announcements_are_flags_in_shared_memory(ring: Ring, memory: mmap.mmap) -> None:
    ring.sleep()
    assert word(memory, SLEEPING) == 1
    ring.awake()
    assert word(memory, SLEEPING) == 0
    ring.sleep()
    ring.wants_bell()
    assert word(memory, SLEEPING) == 0
    ring.push([b"a"])
    ring.sleep()
    assert word(memory, SLEEPING) == 0


def test_a_full_ring_wants_room(ring: Ring, memory: mmap.mmap) -> None:
    assert ring.wait_for_room(240) is False
    assert word(memory, SLEEPING + 8) == 0
    ring.push([bytes(200)])
    assert ring.wait_for_room(100) is True
    assert word(memory, SLEEPING + 8) == 1
    ring.pull(1000)
    assert ring.room_wanted() is True
    assert word(memory, SLEEPING + 8) == 0


def test_the_compiled_ring_has_no_doubt_about_flags(kernel: ModuleType, ring: Ring) -> None:
    certain = ".fast." in kernel.__name__
    ring.push([b"a"])
    assert ring.wants_bell() is not certain
    assert ring.room_wanted() is not certain


@pytest.mark.parametrize("length", [250, 256, 1 << 20, (1 << 32) - 1])
def test_a_length_that_cannot_be_is_corrupt(ring: Ring, memory: mmap.mmap, length: int) -> None:
    ring.push([b"good", b"bad"])
    struct.pack_into("=I", memory, DATA + 24, length)
    assert ring.pull(1000) == [b"good"]
    for _ in range(2):
        with pytest.raises(Corrupt, match=f"{length} bytes at 24"):
            ring.pull(1000)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 264), (0, 4), (0, (1 << 64) - 8), (HEAD, 8), (HEAD, 4), (HEAD, (1 << 64) - 8 - 256)],
)
def test_positions_that_cannot_be_are_corrupt(
    ring: Ring, memory: mmap.mmap, offset: int, value: int
) -> None:
    struct.pack_into("=Q", memory, offset, value)
    for call in (ring.used, ring.free, lambda: ring.push([b"a"]), lambda: ring.pull(1)):
        with pytest.raises(Corrupt, match="ring at 0"):
            call()


@pytest.mark.parametrize(
    ("offset", "size"), [(4, SIZE), (-8, SIZE), (0, 248), (0, 8200), (8192, SIZE), (8, 1 << 33)]
)
def test_refuses_memory_that_does_not_hold_it(
    kernel: ModuleType, memory: mmap.mmap, offset: int, size: int
) -> None:
    with pytest.raises(ValueError, match="no ring of"):
        kernel.Ring(memory, offset, size)


def test_refuses_read_only_memory(kernel: ModuleType) -> None:
    with pytest.raises(ValueError, match="writable"):
        kernel.Ring(bytes(1024), 0, 1024)


def test_kernel_and_twin_share_one_layout() -> None:
    kernels = modules("ring")
    memory = mmap.mmap(-1, 4096)
    for source in kernels:
        for target in kernels:
            assert source.RING_HEADER_BYTES == target.RING_HEADER_BYTES == DATA
            assert source.FRAME_HEADER_BYTES == target.FRAME_HEADER_BYTES == 16
            producer, consumer = source.Ring(memory, 0, SIZE), target.Ring(memory, 0, SIZE)
            for n in range(60):
                assert producer.push([bytes([n]) * n, b"x"], n << 32 | 7, b"\x03\x03") == 2
                assert consumer.used() == producer.used()
                assert consumer.pull(1000) == [bytes([n]) * n, b"x"]
                assert (consumer.stamp, consumer.kind) == (n << 32 | 7, 3)
