"""The configuration: defaults, sources and their order, and sentences for what is wrong."""

from pathlib import Path

import msgspec
import pytest

from robustmq.config import KEYS, SECTIONS, VARIABLES, Config, changed_keys, load, manual
from robustmq.errors import ConfigError

NOTHING: dict[str, str] = {}
ROOT = Path(__file__).resolve().parents[2]


def refused(path: Path | None = None, overrides: tuple[str, ...] = (), **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, environment)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_sources_the_defaults_stand() -> None:
    assert load(None, (), NOTHING) == Config()


def test_the_shipped_file_is_the_manual_and_says_the_defaults() -> None:
    shipped = ROOT / "config" / "server.toml"
    assert shipped.read_text(encoding="utf-8") == manual(), (
        "write robustmq.config.manual() to config/server.toml"
    )
    assert load(shipped, (), NOTHING) == Config()


def test_every_key_is_described_in_the_manual() -> None:
    lines = manual().splitlines()
    assert len(KEYS) >= 40
    for key in KEYS:
        places = [i for i, line in enumerate(lines) if line.startswith(f"{key[-1]} = ")]
        assert places, key
        assert all(lines[place - 1].startswith("# ") for place in places), key


def test_every_default_passes_its_own_bounds() -> None:
    for key, known in KEYS.items():
        assert msgspec.convert(known.default, known.type) == known.default, key


def test_no_two_keys_share_a_variable() -> None:
    assert len(VARIABLES) == len(KEYS)


def test_the_file_then_variables_then_overrides_win(tmp_path: Path) -> None:
    path = written(tmp_path, "http_port = 1\nbroker_id = 1\n[mqtt_runtime.server]\ntcp_port = 1\n")
    variables = {
        "ROBUST_MQ_SERVER_HTTP_PORT": "2",
        "ROBUST_MQ_SERVER_MQTT_RUNTIME_SERVER_TCP_PORT": "2",
        "PATH": "/bin",
    }
    config = load(path, ["mqtt_runtime.server.tcp_port=3"], variables)
    assert (config.broker_id, config.http_port, config.mqtt_runtime.server.tcp_port) == (1, 2, 3)


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("cluster_name=blue", "cluster_name", "blue"),
        ('cluster_name="blue one"', "cluster_name", "blue one"),
        ("cluster_name=7", "cluster_name", "7"),
        ("data_path=/tmp/a b", "data_path", "/tmp/a b"),
        ("data_path=a=b", "data_path", "a=b"),
        (" http_port = 0x10", "http_port", 16),
        ('roles=["meta", "engine"]', "roles", ("meta", "engine")),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_string(
    override: str, name: str, value: object
) -> None:
    assert getattr(load(None, [override], NOTHING), name) == value


def test_workers_are_a_number_or_auto() -> None:
    assert load(None, ["runtime.workers=auto"], NOTHING).runtime.workers == "auto"
    assert load(None, ["runtime.workers=64"], NOTHING).runtime.workers == 64
    assert "expected auto or a number" in refused(overrides=("runtime.workers=four",))
    assert "expected int <= 64" in refused(overrides=("runtime.workers=65",))


@pytest.mark.parametrize(
    ("text", "line", "wrong", "near"),
    [
        ("htpp_port = 1", 1, "htpp_port", "http_port"),
        ("\n[mqtt_runtime.server]\ntcp_prot = 1", 3, "mqtt_runtime.server.tcp_prot", "tcp_port"),
        ("[mqtt_runtime.sever]\ntcp_port = 1", 1, "mqtt_runtime.sever", "mqtt_runtime.server"),
        ("[runtme]\nworkers = 1", 1, "runtme", "runtime"),
        ("tcp_port = 1", 1, "tcp_port", "mqtt_runtime.server.tcp_port"),
        ("# port\nmqtt_runtime.server.port = 1", 2, "mqtt_runtime.server.port", "tcp_port"),
    ],
)
def test_an_unknown_name_is_refused_with_its_line_and_the_nearest_known_one(
    tmp_path: Path, text: str, line: int, wrong: str, near: str
) -> None:
    path = written(tmp_path, text)
    sentence = refused(path)
    assert sentence.startswith(f"{path}:{line}: the configuration has no {wrong}; did you mean ")
    assert sentence.endswith(f"{near}?")


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    assert refused(overrides=("zzz=1",)) == "--set: the configuration has no zzz"


def test_an_unknown_variable_is_refused_with_the_nearest_known_one() -> None:
    sentence = refused(ROBUST_MQ_SERVER_HTTP_PROT="1")
    assert "ROBUST_MQ_SERVER_HTTP_PROT" in sentence
    assert sentence.endswith("did you mean ROBUST_MQ_SERVER_HTTP_PORT?")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("http_port=65536", "http_port = 65536 is refused: expected int <= 65535"),
        ("http_port=-1", "http_port = -1 is refused: expected int >= 0"),
        ("http_port=true", "http_port = true is refused: expected int, got bool"),
        ("http_port=many", 'http_port = "many" is refused: expected int, got str'),
        ("log.level=loud", "expected debug or info or warning or error"),
        ('roles=["boss"]', "expected meta or broker or engine"),
        ("roles=[]", "expected array of length >= 1"),
        ('roles=["meta","meta"]', "names a role twice"),
        ("broker_ip=localhost", "is not an IPv4 or IPv6 address"),
        ("runtime.ring_bytes=70000", "is neither 0 nor a power of two"),
        ("runtime.ring_bytes=4096", "is neither 0 nor a power of two from 65536"),
        ("runtime.restart_backoff_max_ms=100", "is below runtime.restart_backoff_ms"),
        ("mqtt_runtime.keep_alive.default_timeout=nan", "expected float >= 1.0"),
        ("mqtt_runtime.protocol.max_session_expiry_interval=1", "the default: "),
        ("runtime=1", "runtime is a section"),
        ("http_port", "it must have the form section.key=value"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(override: str, reason: str) -> None:
    assert reason in refused(overrides=(override,))


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "no.toml"
    assert refused(missing) == (
        f"the configuration file {missing} cannot be read: No such file or directory"
    )
    assert "is not valid TOML" in refused(written(tmp_path, "= 1"))
    assert "log is a section, not a key" in refused(written(tmp_path, "log = 1"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "it is not UTF-8" in refused(binary)


def test_a_key_that_is_a_table_is_refused(tmp_path: Path) -> None:
    sentence = refused(written(tmp_path, "[http_port]\nx = 1"))
    assert "http_port" in sentence
    assert "expected int, got object" in sentence


def test_changed_keys_names_what_differs() -> None:
    old = load(None, (), NOTHING)
    new = load(None, ["log.level=debug", "http_port=1"], NOTHING)
    assert changed_keys(old, new) == ["http_port", "log.level"]
    assert changed_keys(old, old) == []


def test_sections_have_the_names_of_upstream() -> None:
    assert ("mqtt_runtime", "protocol") in SECTIONS
    assert ("cluster_limit",) in SECTIONS
