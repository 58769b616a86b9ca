"""Where a node stands in its cluster: addresses, numbers and roles, and what is refused."""

from pathlib import Path

import pytest

from robustmq import config
from robustmq.config import Config
from robustmq.errors import ConfigError
from robustmq.settings.place import join_address, split_address

THREE = 'meta_addrs={1="10.0.0.1:1228", 2="10.0.0.2:1228", 3="[::1]:1228"}'


def loaded(*settings: str) -> Config:
    return config.load(None, settings, {})


def test_a_node_is_alone_unless_it_is_told() -> None:
    found = loaded()
    assert found.meta_addrs == {}
    assert found.place.own is None


@pytest.mark.parametrize(
    ("settings", "bind_ip", "host"),
    [
        ((THREE,), "0.0.0.0", "10.0.0.1"),
        ((THREE, "broker_id=3"), "::1", "::1"),
        (('meta_addrs={1="localhost:1228"}',), "127.0.0.1", "localhost"),
        ((THREE, "cluster.bind_ip=10.9.9.9"), "10.9.9.9", "10.0.0.1"),
        ((THREE, "cluster.advertised_host=node.example"), "0.0.0.0", "node.example"),
        ((THREE, "broker_id=4", "broker_ip=10.0.0.4"), "10.0.0.4", "10.0.0.4"),
    ],
)
def test_where_a_node_listens_and_what_others_are_told(
    settings: tuple[str, ...], bind_ip: str, host: str
) -> None:
    place = loaded(*settings).place
    assert (place.bind_ip, place.advertised_host) == (bind_ip, host)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("broker_id=63",), "broker_id = 63 is refused"),
        (('meta_addrs={a="h:1"}',), 'meta_addrs = {a = "h:1"} is wrong: write'),
        (('meta_addrs={63="h:1"}',), "nodes from 0 to 62"),
        (('meta_addrs={01="h:1"}',), "is wrong"),
        (('meta_addrs={1="h"}',), "is wrong"),
        (('meta_addrs={1="h:0"}',), "is wrong"),
        (('roles=["broker"]',), "has no meta"),
        ((THREE, 'roles=["broker"]'), "has no meta"),
        ((THREE, "broker_id=4"), "cluster.advertised_host"),
        ((THREE, "cluster.bind_ip=here"), "cluster.bind_ip"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(settings: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        loaded(*settings)
    assert sentence in str(refusal.value)


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("[cluster]\nsecret = 1234567\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cluster\.secret") as refusal:
        config.load(path, (), {})
    assert "1234567" not in str(refusal.value)


@pytest.mark.parametrize("text", ["host:1", "10.0.0.1:65535", "[fe80::1]:1228"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert join_address(*split_address(text)) == text
