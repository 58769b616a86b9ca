"""The configuration: defaults, sources and their order, and sentences for what is wrong."""

from pathlib import Path

import msgspec
import pytest

from robustmq.config import (
    KEYS,
    SECTIONS,
    VARIABLES,
    Config,
    Storage,
    TopicRule,
    changed_keys,
    load,
    manual,
)
from robustmq.errors import ConfigError
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log_settings import LogSettings
from tests.unit.settings import NOTHING, refused, written

ROOT = Path(__file__).resolve().parents[2]


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
        # Sections that are alike are described once.
        struct = SECTIONS.get(key[:-1])
        told = next((at for at, other in SECTIONS.items() if other is struct), ())
        start = lines.index(f"[{'.'.join(told)}]") if told else 0
        place = next(i for i in range(start, len(lines)) if lines[i].startswith(f"{key[-1]} = "))
        assert lines[place - 1].startswith("# "), key


def test_sections_that_are_alike_refer_to_the_first() -> None:
    text = manual()
    assert text.count("# What holds for the clients of one listener.") == 1
    assert "# As [mqtt_runtime.listener.tcp].\n[mqtt_runtime.listener.wss]\n" in text


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
        ("websocket_port = 1", 1, "websocket_port", "mqtt_runtime.server.websocket_port"),
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
        ("meta_runtime.raft.election_timeout_ms=150", "no leader would stay"),
        ("mqtt_runtime.keep_alive.default_timeout=nan", "expected float >= 1.0"),
        ("mqtt_runtime.protocol.max_session_expiry_interval=1", "the default: "),
        ("storage.flush=never", "expected always or interval or os"),
        ("storage.pending_bytes=0", "expected int >= 65536"),
        ("mqtt_runtime.inbox.on_full=wait", "expected drop_oldest or refuse_newest"),
        ("mqtt_runtime.inbox.max_age_ms=-1", "expected int >= 0"),
        ("mqtt_runtime.delayed.enable=1", "expected bool, got int"),
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


@pytest.mark.parametrize("settings", [EngineSettings, LogSettings])
def test_storage_has_the_limits_of_the_engines_with_their_defaults(
    settings: type[msgspec.Struct],
) -> None:
    ours = {info.name: info.default for info in msgspec.structs.fields(Storage)}
    ours |= {info.name: info.default for info in msgspec.structs.fields(TopicRule)}
    engines = {info.name: info.default for info in msgspec.structs.fields(settings)}
    # Not the administrator's: whoever opens a log knows.
    engines.pop("empty_deletes", None)
    assert engines == {name: ours.get(name) for name in engines}


@pytest.mark.parametrize("settings", [EngineSettings, LogSettings])
def test_an_engine_takes_every_value_that_storage_takes(settings: type[msgspec.Struct]) -> None:
    taken = {info.name for info in msgspec.structs.fields(settings)}
    checked = 0
    for key, known in KEYS.items():
        if key[0] != "storage" or key[1] not in taken:
            continue
        for meta in getattr(known.type, "__metadata__", ()):
            for bound in (meta.ge, meta.le):
                built = msgspec.convert({key[1]: bound}, settings)
                assert getattr(built, key[1]) == bound
                checked += 1
    assert checked >= 10


def test_a_long_value_is_told_by_its_beginning() -> None:
    sentence = refused(overrides=(f"log.level={'x' * 1_000}",))
    assert f'log.level = "{"x" * 90}' in sentence
    assert len(sentence) < 200


USER = '[[users]]\nusername = "alice"\npassword = "{}"\n'
KEPT = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def test_users_are_read(tmp_path: Path) -> None:
    text = USER.format(KEPT) + USER.format("").replace("alice", "bob") + 'tenant = "acme"\n'
    text = '[mqtt_runtime.auth]\ntenants = ["acme"]\n' + text
    alice, bob = load(written(tmp_path, text), (), NOTHING).users
    assert (alice.username, alice.passwords, alice.superuser) == ("alice", (KEPT,), False)
    assert (bob.tenant, bob.passwords) == ("acme", ())
    several = USER.format("X").replace('"X"', f'["{KEPT}", "{KEPT}"]')
    (alice,) = load(written(tmp_path, several), (), NOTHING).users
    assert alice.passwords == (KEPT, KEPT)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (USER.format("hunter2"), "robustmq-password"),
        (USER.format(KEPT.replace("4096", "0")), "1 to 1000000 iterations"),
        (USER.format(KEPT.replace("4096", "9000000")), "1 to 1000000 iterations"),
        (USER.format(KEPT[:-1]), "in none of the formats"),
        (USER.format(KEPT) * 2, "there are two users alice"),
        (USER.format("x").replace('"x"', "17"), "users.password = ... is refused: expected"),
        ('[[users]]\npassword = ""\n', "has no username"),
        ('[[users]]\nusername = "a"\ntenant = "a/b"\n', "tenant"),
        ('[[users]]\nusername = "a"\ntenant = "acme"\n', "mqtt_runtime.auth.tenants: add it"),
        ('[mqtt_runtime.listener.ws]\ntenant = "acme"\n', "mqtt_runtime.auth.tenants: add it"),
        ('[mqtt_runtime.auth]\ntenants = [""]\n', "length >= 1"),
    ],
)
def test_users_and_tenants_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as error:
        load(written(tmp_path, text), (), NOTHING)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "value"), [("true", True), ("false", False), ("auto", "auto"), ('"auto"', "auto")]
)
def test_a_word_or_a_truth(given: str, value: object) -> None:
    config = load(None, [f"mqtt_runtime.auth.secret_free_login={given}"], NOTHING)
    assert config.mqtt_runtime.auth.secret_free_login == value
