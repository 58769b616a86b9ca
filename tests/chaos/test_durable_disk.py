"""A disk that is full or has damaged files: nothing acknowledged is lost but what was damaged."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.device import Device, Publisher, Subscriber
from tests.chaos.disk import Disk, LimitedFiles, SmallDisk, may_mount
from tests.chaos.ledger import Ledger, Stream, Verdict
from tests.chaos.plant import RobustPlant
from tests.chaos.talker import opened
from tests.chaos.trial import eventually
from tests.integration.homes import name_on
from tests.integration.supervised import until

QUOTA_EXCEEDED: Final = 0x97
MESSAGES: Final = 800
LATER: Final = 100
MOST: Final = 12_000
SETTINGS: Final = ("storage.retry_ms=100", "mqtt_runtime.inbox.max_bytes=1073741824")
SECONDS: Final = 240.0


@contextlib.asynccontextmanager
async def living(plant: RobustPlant, *devices: Device) -> AsyncIterator[None]:
    """Let devices live."""
    lives = [asyncio.create_task(device.run(plant.address)) for device in devices]
    try:
        yield
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


async def published(publisher: Publisher, stream: Stream, count: int) -> None:
    """Publish so many messages, and wait until all are answered."""
    for _ in range(count):
        await eventually(
            lambda: publisher.publish(stream),
            f"{stream} goes on, {len(publisher.pending)} messages wait for an answer",
        )
    await eventually(lambda: not publisher.pending, "every publish is answered")


async def until_taken(publisher: Publisher, stream: Stream) -> None:
    """Publish one by one until a message is taken, as after a full disk."""
    before = publisher.ledger.verdict().acknowledged
    async with asyncio.timeout(60):
        while publisher.ledger.verdict().acknowledged == before:
            await published(publisher, stream, 1)
            await asyncio.sleep(0.05)


def check_alarm(plant: RobustPlant) -> None:
    """See that a full disk is an alarm of a node that is ready."""
    status, body = plant.node.get("/health/ready")
    assert status == 200
    assert json.loads(body)["alarms"]["storage_refusing"]
    assert plant.node.seen("storing is refused: durable messages and sessions are not taken")


def wait_for_the_end_of_the_alarm(plant: RobustPlant) -> None:
    """Wait until the node says that it stores again."""
    calm = (200, '{"status":"ready"}')
    until(lambda: plant.node.get("/health/ready") == calm, "the alarm is over")
    until(lambda: plant.node.seen("storing goes on"), "the end is told")


@pytest.fixture(params=["small disk", "limited files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    # Without the right to mount, the other parameter still is a disk that cannot be written.
    (tmp_path / "disk").mkdir()
    mounts = request.param == "small disk" and may_mount()
    found: Disk = SmallDisk(tmp_path / "disk") if mounts else LimitedFiles()
    yield found
    found.close()


@pytest.mark.slow
def test_a_full_disk_refuses_and_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    plant = RobustPlant(tmp_path / "disk", settings=SETTINGS, prefix=disk.prefix)
    ledger = Ledger()
    topics = [("full/a", 1), ("full/a", 2), ("full/big", 1)]
    publisher = Publisher(ledger, name_on(0, "pub"), topics, window=50)
    one, two, big = publisher.streams()
    reader = Subscriber(ledger, name_on(1, "reader"), [("full/#", 1)])
    exact = Subscriber(ledger, name_on(0, "exact"), [("full/a", 2)])

    async def while_full() -> None:
        # Some room may have been taken in advance; it is used up here.
        for _ in range(MOST // 20):
            await published(publisher, big, 20)
            if publisher.reasons:
                break
        assert publisher.reasons, f"{MOST} messages of 8 KiB are taken while the disk is full"
        for stream in (one, two, big):
            await published(publisher, stream, 20)
        check_alarm(plant)
        assert set(publisher.reasons) == {QUOTA_EXCEEDED}
        assert len(publisher.reasons) >= 60
        reader.come()
        owed = "what is there is read while nothing can be written"
        await eventually(lambda: ledger.missing(reader.client_id) == 0, owed)
        listener = await opened(plant.address, name_on(1, "listener"))
        await listener.subscribe("live")
        speaker = await opened(plant.address, name_on(0, "speaker"), 5)
        for _ in range(20):
            await speaker.say("live", b"x")
        await listener.until_heard(20)
        for talker in (listener, speaker):
            await talker.close()

    async def scenario() -> Verdict:
        async with living(plant, publisher, reader, exact):
            await eventually(lambda: reader.subscribed() and exact.subscribed(), "subscribed")
            reader.leave(politely=True)
            for stream in (one, two):
                await published(publisher, stream, LATER)
            # What goes out at QoS 2 is written first, so this one must be up to date now.
            await eventually(lambda: ledger.missing(exact.client_id) == 0, "delivered")
            disk.fill(plant)
            await while_full()
            reader.leave(politely=False)
            disk.clear(plant)
            for stream in (one, two, big):
                await until_taken(publisher, stream)
            await asyncio.to_thread(wait_for_the_end_of_the_alarm, plant)
            refused = len(publisher.reasons)
            for stream in (one, two):
                await published(publisher, stream, LATER)
            assert len(publisher.reasons) == refused, "there is room, and messages are refused"
            await asyncio.to_thread(plant.kill_all)
            await asyncio.to_thread(plant.start)
            reader.come()
            for stream in (one, two):
                await published(publisher, stream, LATER)
            await eventually(lambda: ledger.missing() == 0, f"all arrives: {ledger.verdict()}")
            return ledger.verdict()

    plant.start()
    try:
        verdict = asyncio.run(asyncio.wait_for(scenario(), SECONDS))
        print(f"\na full disk: {verdict}")
        assert not verdict.faults(), verdict
        assert "Traceback" not in plant.logs()
    finally:
        plant.close()


def newest(data: Path) -> Path:
    """Return the write-ahead log that was written last."""
    logs = [path for path in data.rglob("[0-9]*.log") if path.stat().st_size]
    assert logs, f"no write-ahead log under {data}"
    return max(logs, key=lambda path: path.stat().st_mtime_ns)


def cut(log: Path, rng: random.Random) -> int:
    """Cut the end of a log off, as when the machine went down in the middle of a write."""
    size = log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(size - rng.randint(1, 20))
    return 1


def flip(log: Path, rng: random.Random) -> int:
    """Turn a bit around in the middle; RocksDB may miss what lies in the same 32 KiB."""
    data = bytearray(log.read_bytes())
    data[int(len(data) * rng.uniform(0.5, 0.9))] ^= 1 << rng.randrange(8)
    log.write_bytes(data)
    return MESSAGES * 2 * 32_768 // len(data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_files_cost_what_was_in_them(
    damage: Callable[[Path, random.Random], int], seed: int, tmp_path: Path
) -> None:
    plant = RobustPlant(tmp_path, (1,))
    ledger = Ledger()
    publisher = Publisher(ledger, "pub", [("a/b", 1), ("a/b", 2)], window=1)
    sleeper = Subscriber(ledger, "sub", [("a/+", 2)])
    one, two = publisher.streams()
    allowed = 0

    async def scenario() -> None:
        nonlocal allowed
        async with living(plant, publisher, sleeper):
            await eventually(sleeper.subscribed, "subscribed")
            sleeper.leave(politely=True)
            await published(publisher, one, MESSAGES)
            await asyncio.to_thread(plant.kill_all)
            allowed = damage(newest(plant.data), random.Random(seed))
            await asyncio.to_thread(plant.start)
            for stream in (one, two):
                await published(publisher, stream, LATER)
            sleeper.come()
            with contextlib.suppress(AssertionError):
                await eventually(lambda: ledger.missing() <= allowed, "the rest is served")
            await asyncio.sleep(0.5)

    plant.start()
    try:
        asyncio.run(asyncio.wait_for(scenario(), SECONDS))
        verdict = ledger.verdict()
        print(f"\n{damage.__name__}, {allowed} may be lost: {verdict}")
        assert set(verdict.faults()) <= {"lost"}, verdict
        assert verdict.lost <= allowed, verdict
        heard = ledger.heard("sub", one)
        assert {*range(MESSAGES // 3), *range(MESSAGES, MESSAGES + LATER)} <= heard
        assert ledger.heard("sub", two) == {*range(LATER)}
        if damage is flip:
            assert plant.node.complaints(), "the node says nothing about what was damaged"
    finally:
        plant.close()
