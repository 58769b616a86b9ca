"""Metadata that clients write through any node, and what must be read everywhere at the end."""

import asyncio
import json
import random
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tests.chaos.talker import packet, text

SECONDS: Final = 12.0
"""How long an answer is waited for."""
BANNED: Final = 0x8A
_CLIENTS: Final = 24


def call(base: str, path: str, content: object = None) -> tuple[int, Any]:
    """Ask an administration; return status and answer; 0 when there was none."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"{base}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, ValueError):
        return 0, None


def everything(base: str) -> dict[str, str]:
    """Return all keys of the cluster's store as a node reads them, and all bans it knows."""
    found: dict[str, str] = {}
    start = ""
    while True:
        path = f"/api/cluster/kv/list?limit=100&start={urllib.parse.quote(start)}"
        status, answer = call(base, path)
        assert status == 200, answer
        found |= {row["key"]: row["value"] for row in answer["data"]["data"]}
        start = answer["data"]["next"]
        if not start:
            break
    page, total = 0, 1
    bans: set[str] = set()
    while len(bans) < total:
        page += 1
        status, answer = call(base, f"/api/cluster/blacklist/list?limit=100&page={page}")
        assert status == 200, answer
        total = answer["data"]["total_count"]
        bans |= {row["name"] for row in answer["data"]["data"]}
    return found | dict.fromkeys((f"ban {name}" for name in bans), "")


def reason(address: tuple[str, int], client_id: str) -> int:
    """Return what a node says to a client that connects."""
    with socket.create_connection(address, SECONDS) as sock:
        sock.sendall(packet(0x10, text("MQTT"), b"\5\2\0\0\0", text(client_id)))
        return sock.recv(4, socket.MSG_WAITALL)[3]


class Registers:
    """Writers of keys and bans, and their account.

    Each name is written by one writer, one step after the other: set, perhaps changed, perhaps
    deleted. A step without an answer may be done or not, now or later: such a name is settled by
    nothing that comes after it, so nothing does.
    """

    def __init__(self, base: Callable[[int], str | None], nodes: tuple[int, ...]) -> None:
        self._base = base
        self._nodes = nodes
        self._count = 0
        self.certain: dict[str, str | None] = {}
        self.possible: dict[str, set[str | None]] = {}
        self.counts: Counter[str] = Counter()
        self.stale: list[str] = []

    async def write(self, rng: random.Random) -> None:
        """Write until cancelled."""
        while True:
            self._count += 1
            name = f"{'ban k' if rng.random() < 0.3 else 'k'}{self._count:05}"
            steps: list[str | None] = [f"{rng.random()}"]
            if not name.startswith("ban"):
                steps += [f"{rng.random()}"] * (rng.random() < 0.3)
            steps += [None] * (rng.random() < 0.3)
            for value in steps:
                if not await self._step(rng, name, value):
                    break
            await asyncio.sleep(rng.uniform(0.0, 0.2))

    async def _step(self, rng: random.Random, name: str, value: str | None) -> bool:
        base = self._base(rng.choice(self._nodes))
        if base is None:
            await asyncio.sleep(0.05)
            return False
        before = self.certain.pop(name, None)
        self.possible[name] = {before, value}
        status, _ = await asyncio.to_thread(call, base, *_request(name, value))
        if status != 200:
            self.counts[f"answer {status}"] += 1
            return False
        del self.possible[name]
        self.certain[name] = value
        self.counts["acknowledged"] += 1
        if not name.startswith("ban") and rng.random() < 0.5:
            await self._read(rng, name, value)
        return True

    async def _read(self, rng: random.Random, name: str, value: str | None) -> None:
        """Read at any node what was just acknowledged at one: it is there, or nobody answers."""
        base = self._base(rng.choice(self._nodes))
        if base is None:
            return
        status, answer = await asyncio.to_thread(call, base, f"/api/cluster/kv/list?prefix={name}")
        if status == 200:
            self.counts["reads"] += 1
            found = {row["key"]: row["value"] for row in answer["data"]["data"]}.get(name)
            if found != value:
                self.stale.append(f"{name} was {found}, not {value}")

    def faults(self, found: dict[str, str]) -> list[str]:
        """Return what a node has otherwise than it was acknowledged."""
        wrong = [
            f"{name} is {found.get(name)}, not {value}"
            for name, value in self.certain.items()
            if not _same(name, found.get(name), value)
        ]
        for name, values in self.possible.items():
            if not any(_same(name, found.get(name), value) for value in values):
                wrong.append(f"{name} is {found.get(name)}, none of {values}")
        strangers = found.keys() - self.certain.keys() - self.possible.keys()
        return wrong + [f"{name} was never written" for name in strangers]

    def met(self, address: tuple[str, int]) -> list[str]:
        """Return the bans that the workers of a node do not go by, as far as some clients show."""
        bans = [name for name in self.certain if name.startswith("ban")]
        return [
            f"the client of {name} ({self.certain[name]}) is told {said:#x}"
            for name in bans[-_CLIENTS:]
            if (said := reason(address, f"nobody {name}"))
            != (0 if self.certain[name] is None else BANNED)
        ]


def _same(name: str, found: str | None, value: str | None) -> bool:
    """Say whether this is that; of a ban only that it is there."""
    return (found is None) is (value is None) and (name.startswith("ban") or found == value)


def _request(name: str, value: str | None) -> tuple[str, object]:
    if name.startswith("ban "):
        content = {"name": name[4:]}
        if value is None:
            return "/api/cluster/blacklist/delete", content
        ban = {"blacklist_type": "ClientId", "resource_name": f"nobody {name}"}
        return "/api/cluster/blacklist/create", content | ban
    if value is None:
        return "/api/cluster/kv/delete", {"key": name}
    return "/api/cluster/kv/set", {"key": name, "value": value}
