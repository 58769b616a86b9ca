"""Where a node stands in its cluster: its number, and the addresses of the first nodes."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from robustmq.settings.cluster import Cluster

NODE_MAX: Final = 62
"""The highest number of a node in a cluster: the number of a core has room for no more."""

GRPC_PORT: Final = 1228


class Place(NamedTuple):
    """Where a node stands: what of the configuration decides it."""

    node: int
    broker_ip: str
    addresses: Mapping[str, str]
    cluster: Cluster

    @property
    def own(self) -> str | None:
        """The node's own entry of meta_addrs, None when it has none."""
        return self.addresses.get(str(self.node))

    @property
    def bind_ip(self) -> str:
        """The address that the ports of the cluster are bound to."""
        if self.cluster.bind_ip:
            return self.cluster.bind_ip
        host = split_address(self.own)[0] if self.own else ""
        if host == "localhost":
            return "127.0.0.1"
        return host if _is_loopback(host) else self.broker_ip

    @property
    def advertised_host(self) -> str:
        """The name or address by which other nodes reach this one."""
        if self.cluster.advertised_host:
            return self.cluster.advertised_host
        return split_address(self.own)[0] if self.own else self.broker_ip


def split_address(text: str) -> tuple[str, int]:
    """Split "host:port" or "[host]:port"; raises ValueError when it is neither."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not 0 < int(port) < 65_536:
        raise ValueError(text)
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Write "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def faults(place: Place, roles: tuple[str, ...]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it is wrong, key, sentence that begins with a verb) for the cluster's keys."""
    cluster, addresses = place.cluster, place.addresses
    wrong = not all(_is_entry(key, text) for key, text in addresses.items())
    yield wrong, "meta_addrs", 'is wrong: write {1="host:port"}, with nodes from 0 to 62'
    yield (
        "meta" not in roles and (not addresses or place.own is not None),
        "roles",
        "has no meta, but this node is one of meta_addrs or has none: add meta, or name others",
    )
    yield (
        bool(cluster.bind_ip) and not _is_address(cluster.bind_ip),
        "cluster.bind_ip",
        "is not an IPv4 or IPv6 address",
    )
    if wrong or not addresses:
        return
    yield (
        _is_wildcard(place.advertised_host),
        "cluster.advertised_host",
        "is needed: other nodes cannot reach this one by an address such as broker_ip",
    )


def _is_entry(key: str, text: str) -> bool:
    try:
        split_address(text)
        return key == str(int(key)) and 0 <= int(key) <= NODE_MAX
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback


def _is_wildcard(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_unspecified
