"""Clients that take their durable sessions from node to node, and change their subscriptions."""

import asyncio
import random
from collections import Counter
from typing import Final

from tests.chaos.device import PUBACK, PUBLISH, SUBACK, Device
from tests.chaos.ledger import Ledger
from tests.chaos.talker import packet, text

UNSUBACK: Final = 11
SLOTS: Final = 4
"""Filters that a wanderer has or has not."""
END: Final = SLOTS
"""The slot that each has at the end."""


class Wanderer(Device):
    """One session; `has` says of each slot whether it is subscribed, None: nobody can know.

    What is not answered on its connection may be done or not; what is answered after that holds.
    """

    def __init__(self, ledger: Ledger, client_id: str, places: int) -> None:
        super().__init__(ledger, client_id)
        self.has: dict[int, bool | None] = dict.fromkeys(range(SLOTS), False)
        self.heard: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._places = places
        self._answers: dict[int, asyncio.Future[int]] = {}

    def topic(self, slot: int) -> str:
        """Return the topic of a slot, which is its filter as well."""
        return f"wander/{self.client_id}/{slot}"

    async def wander(self, rng: random.Random) -> None:
        """Move and change subscriptions until cancelled."""
        while True:
            if rng.random() < 0.5:
                await self.move(rng, rng.uniform(1.0, 6.0))
            if await self.change(rng.randrange(SLOTS), wanted=rng.random() < 0.6):
                self.counts["changes"] += 1
            await asyncio.sleep(rng.uniform(0.02, 0.3))

    async def move(self, rng: random.Random, seconds: float) -> bool:
        """Go to another node; False when that has no answer in time."""
        before = self.connections
        self.place = (self.place + rng.randrange(1, self._places)) % self._places
        self.drop()
        try:
            async with asyncio.timeout(seconds):
                while self.connections == before or not self.online:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        self.counts["moves"] += 1
        return True

    async def change(self, slot: int, *, wanted: bool) -> bool:
        """Subscribe to a slot or end that; False when it is not answered."""
        if not self.online:
            return False
        packet_id = self._last_id = self._last_id % 65_535 + 1
        answer = self._answers[packet_id] = asyncio.get_running_loop().create_future()
        if self.has[slot] is not wanted:
            self.has[slot] = None
        head = packet_id.to_bytes(2, "big") + b"\0" + text(self.topic(slot))
        self.send(packet(0x82, head, b"\1") if wanted else packet(0xA2, head))
        try:
            async with asyncio.timeout(5):
                reason = await answer
        except (TimeoutError, ConnectionError):
            return False
        finally:
            del self._answers[packet_id]
        if reason >= 0x80:
            # A refused change has been made by nobody, or by a cluster that did not say so.
            self.counts["refused"] += 1
            return False
        self.has[slot] = wanted
        return True

    def on_new_session(self) -> None:
        """Whether that may be is seen to by who counts what was forgotten."""

    def on_connected(self) -> None:
        """What was asked on the connection before is not answered any more."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())
                answer.exception()

    def on_packet(self, first: int, body: bytes) -> None:
        """Take answers and messages."""
        kind = first >> 4
        if kind in {SUBACK, UNSUBACK}:
            answer = self._answers.get(int.from_bytes(body[:2], "big"))
            if answer is not None and not answer.done():
                answer.set_result(body[-1])
        elif kind == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            self.heard.add(body[2:end].decode())
            self.send(bytes((PUBACK << 4, 2)) + body[end : end + 2])
        else:
            self.ledger.breach(self.client_id, f"packet {kind}")

    def faults(self) -> list[str]:
        """Return what is not as it was acknowledged, after a message to each slot."""
        return [
            f"{self.topic(slot)}: {'lost' if has else 'not ended'}"
            for slot, has in self.has.items()
            if has is not None and has is not (self.topic(slot) in self.heard)
        ]
