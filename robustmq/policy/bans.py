"""Who may not connect: the bans of this node, by configuration and by its administrator."""

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from robustmq.errors import Refusal, Refused
from robustmq.policy.principal import Principal
from robustmq.settings.limits import Ban

KIND: Final = "blacklist"
"""The kind of node records that bans are."""
ANY_TENANT: Final = "*"


def ban_of(name: str, value: Mapping[str, Any]) -> Ban:
    """Read a record; raises ValueError with a sentence when it is no ban."""
    try:
        return msgspec.convert({**value, "name": name}, Ban)
    except msgspec.ValidationError as error:
        raise ValueError(f"the ban {name} cannot be used: {error}") from error


def record_of(ban: Ban) -> dict[str, Any]:
    """Write a ban as the value of its record."""
    value: dict[str, Any] = msgspec.to_builtins(ban)
    del value["name"]
    return value


def is_over(ban: Ban, now_ms: int) -> bool:
    """Say whether a ban has ended."""
    return 0 < ban.end_time * 1_000 <= now_ms


class Bans:
    """The bans by what they concern: exact ones are one look-up, patterns are tried in turn.

    Networks cost one look-up for each length of prefix that occurs. `configured` cannot be
    removed. `added` hears of each new ban: somebody may be connected whom it concerns.
    """

    def __init__(self, configured: Iterable[Ban] = ()) -> None:
        self._configured = tuple(configured)
        self._named: dict[str, Ban] = {}
        self._exact: dict[tuple[str, str, str], dict[str, Ban]] = {}
        self._networks: dict[tuple[int, int], dict[int, dict[str, Ban]]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], Ban]] = {}
        self.added: Callable[[Ban], None] | None = None
        self._add_configured()

    def __len__(self) -> int:
        return len(self._named)

    def clear(self) -> None:
        """Forget all but what is configured."""
        self._named.clear()
        self._exact.clear()
        self._networks.clear()
        self._patterns.clear()
        self._add_configured()

    def apply(self, name: str, value: Mapping[str, Any] | None, changed: int = 0) -> None:
        """Add or replace a ban by its record, or with None remove it; raises ValueError."""
        del changed
        ban = None if value is None else ban_of(name, value)
        self._remove(name)
        if ban is not None:
            self._add(name, ban)
            if self.added is not None:
                self.added(ban)

    def refusal(self, principal: Principal, now_ms: int) -> Refused | None:
        """Say why a client may not connect; None when no ban concerns it."""
        if not self._named:
            return None
        for ban in self._concerning(principal):
            if not is_over(ban, now_ms):
                until = f"until {ban.end_time} (Unix time)" if ban.end_time else "for good"
                why = f": {ban.desc}" if ban.desc else ""
                return Refused(Refusal.BANNED, f"{principal.client_id} is banned {until}{why}")
        return None

    def _concerning(self, principal: Principal) -> Iterator[Ban]:
        tenants = (principal.tenant, ANY_TENANT)
        for tenant in tenants:
            yield from self._exact.get(("ClientId", tenant, principal.client_id), {}).values()
            if principal.username is not None:
                yield from self._exact.get(("User", tenant, principal.username), {}).values()
        if principal.address and self._networks:
            yield from self._of_address(principal.address)
        for pattern, ban in self._patterns.values():
            subject = (
                principal.client_id if ban.blacklist_type == "ClientIdMatch" else principal.username
            )
            if subject is not None and ban.tenant in tenants and pattern.match(subject):
                yield ban

    def _of_address(self, text: str) -> Iterator[Ban]:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return
        address = getattr(address, "ipv4_mapped", None) or address
        for (version, shift), networks in self._networks.items():
            if version == address.version and (found := networks.get(int(address) >> shift)):
                yield from found.values()

    def _add_configured(self) -> None:
        for number, ban in enumerate(self._configured):
            # A name that no record can have: they are not empty and hold no U+0000.
            self._add(f"\0{number}", ban)

    def _add(self, name: str, ban: Ban) -> None:
        self._named[name] = ban
        if ban.blacklist_type in {"Ip", "IPCIDR"}:
            self._network(ban).setdefault(name, ban)
        elif ban.blacklist_type in {"ClientIdMatch", "UserMatch"}:
            glob = ban.resource_name.replace("[", "[[]")
            self._patterns[name] = (re.compile(fnmatch.translate(glob)), ban)
        else:
            self._exact.setdefault(_key(ban), {})[name] = ban

    def _remove(self, name: str) -> None:
        ban = self._named.pop(name, None)
        if ban is None:
            return
        if ban.blacklist_type in {"Ip", "IPCIDR"}:
            self._network(ban).pop(name, None)
            self._networks = {
                key: kept
                for key, networks in self._networks.items()
                if (kept := {start: named for start, named in networks.items() if named})
            }
        elif ban.blacklist_type in {"ClientIdMatch", "UserMatch"}:
            self._patterns.pop(name, None)
        else:
            key = _key(ban)
            named = self._exact.get(key, {})
            named.pop(name, None)
            if not named:
                self._exact.pop(key, None)

    def _network(self, ban: Ban) -> dict[str, Ban]:
        network = ipaddress.ip_network(ban.resource_name)
        shift = network.max_prefixlen - network.prefixlen
        networks = self._networks.setdefault((network.version, shift), {})
        return networks.setdefault(int(network.network_address) >> shift, {})


def _key(ban: Ban) -> tuple[str, str, str]:
    return ban.blacklist_type, ban.tenant, ban.resource_name
