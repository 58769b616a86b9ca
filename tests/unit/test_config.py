"""The configuration: defaults, sources and their order, and sentences for what is wrong."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robustmq.cli.supervisor import main
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
from robustmq.config_topics import AutoSubscribe, TopicRewrite, wrong_filter
from robustmq.errors import ConfigError, ProtocolError
from robustmq.message.topic import validate_filter
from robustmq.storage.engine import EngineSettings, LogSettings

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


RULE = '[[topic_rules]]\nfilter = "a/#"\n'


def test_rules_are_read_in_their_order_with_their_defaults(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'topic_rules = [{filter = "a/+", engine = "segment", own_shard = true}, {filter = "#"}]',
    )
    assert load(path, (), NOTHING).topic_rules == (
        TopicRule(filter="a/+", engine="segment", own_shard=True),
        TopicRule(filter="#", engine="rocksdb", flush="interval", interval_ms=1_000),
    )
    assert load(written(tmp_path, "topic_rules = []"), (), NOTHING) == Config()


def test_a_rule_can_say_everything(tmp_path: Path) -> None:
    text = """
        flush = "os"
        interval_ms = 5
        retention_ms = 1
        retention_bytes = 2
        retention_records = 3
        compact = true
        own_shard = true
        store_qos0 = true
        max_message_bytes = 4
    """
    (rule,) = load(written(tmp_path, RULE + text), (), NOTHING).topic_rules
    assert rule == TopicRule(
        filter="a/#",
        flush="os",
        interval_ms=5,
        retention_ms=1,
        retention_bytes=2,
        retention_records=3,
        compact=True,
        own_shard=True,
        store_qos0=True,
        max_message_bytes=4,
    )


def test_where_a_rule_says_nothing_of_flush_it_is_that_of_storage(tmp_path: Path) -> None:
    text = f'{RULE}[[topic_rules]]\nfilter = "b"\nflush = "os"\n[storage]\nflush = "always"\n'
    config = load(written(tmp_path, text), ["storage.interval_ms=20"], NOTHING)
    found = [(rule.flush, rule.interval_ms) for rule in config.topic_rules]
    assert found == [("always", 20), ("os", 20)]


@pytest.mark.parametrize(
    ("written_as", "engine"),
    [
        ("EngineMemory", "memory"),
        ("EngineRocksDB", "rocksdb"),
        ("EngineSegment", "segment"),
        ("memory", "memory"),
        ("rocksdb", "rocksdb"),
        ("segment", "segment"),
    ],
)
def test_an_engine_has_two_names(tmp_path: Path, written_as: str, engine: str) -> None:
    path = written(tmp_path, f'{RULE}engine = "{written_as}"\n')
    assert load(path, (), NOTHING).topic_rules[0].engine == engine


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (f"{RULE}\n{RULE}", 4, "no topic is left for this rule: {path}:1 has the same filter"),
        ("[[topic_rules]]\nflush = 'os'", 1, "this [[topic_rules]] has no filter; it needs one"),
        (
            f"{RULE}[[topic_rules]]\nfilter = 'b'\nfluhs = 'os'",
            5,
            "did you mean topic_rules.flush?",
        ),
        (f"{RULE}retention_sec = 1", 3, "did you mean topic_rules.retention_ms?"),
        (f"{RULE}xyz = 1", 3, "the configuration has no topic_rules.xyz"),
        (f"{RULE}[topic_rules.engine]\nname = 1", 3, "refused: expected str, got object"),
        (f"{RULE}[log]\nlevel = 'info'\n{RULE}filer = 1", 7, "did you mean topic_rules.filter?"),
        ("[[topic_rule]]\nfilter = 'a'", 1, "did you mean topic_rules?"),
        ("broker_id = 2\n[topic_rules]\nfilter = 'a'", 2, "each begins with [[topic_rules]]"),
        ("topic_rules = 1", 1, "each begins with [[topic_rules]]"),
        ("\ntopic_rules = [{filter = 'a', xyz = 1}]", 2, "has no topic_rules.xyz"),
        (f"{RULE}engine = 'rocks'", 3, "expected memory or rocksdb or segment"),
        (f"{RULE}engine = 1", 3, "topic_rules.engine = 1 is refused"),
        (f"{RULE}flush = 'never'", 3, "expected always or interval or os"),
        (f"{RULE}compact = 1", 3, "topic_rules.compact = 1 is refused: expected bool, got int"),
        (f"{RULE}retention_ms = -1", 3, "expected int >= 0"),
        (f"{RULE}max_message_bytes = 999999999", 3, "expected int <= 268435460"),
        (f"{RULE}engine = 'memory'\ncompact = true", 4, 'has no effect with engine = "memory"'),
        ("[[topic_rules]]\nfilter = ''", 2, "expected str of length >= 1"),
        ("[[topic_rules]]\nfilter = 1", 2, "expected str, got int"),
        ("[[topic_rules]]\nfilter = 'a/#/b'", 2, '"a/#/b" is no topic filter: + stands alone'),
        ("[[topic_rules]]\nfilter = '$share/g/a'", 2, "leave out $share and the group"),
        ('[[topic_rules]]\nfilter = "\\u0000"', 2, "holds U+0000"),
        (f"[[topic_rules]]\nfilter = '{'ü' * 32_768}'", 2, "is longer than 65535 bytes"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    path = written(tmp_path, text)
    sentence = refused(path)
    assert sentence.startswith(f"{path}:{line}: ")
    assert reason.format(path=path) in sentence


def test_check_config_tells_of_a_wrong_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, f"{RULE}engine = 'rocks'")
    assert main(["--check-config", "-c", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"robustmq-supervisor: {path}:3: topic_rules.engine = ")
    path = written(tmp_path, f"{RULE}engine = 'rocksdb'")
    assert main(["--check-config", "-c", str(path)]) == 0
    assert capsys.readouterr().out == "ok\n"


@pytest.mark.parametrize(
    "override",
    ["topic_rules=[]", "topic_rules.0.flush=os", "topic_rules[0].flush=os", "topic_rules"],
)
def test_rules_are_set_in_the_file_alone(override: str) -> None:
    wanted = "topic_rules cannot be set here; write them as [[topic_rules]] in the configuration"
    assert refused(overrides=(override,)).startswith(f"--set {override}: {wanted}")
    whole = refused(ROBUST_MQ_SERVER_TOPIC_RULES="1")
    assert whole.startswith(f"the variable ROBUST_MQ_SERVER_TOPIC_RULES: {wanted}")
    part = refused(ROBUST_MQ_SERVER_TOPIC_RULES_0_FLUSH="os")
    assert part.startswith(f"the variable ROBUST_MQ_SERVER_TOPIC_RULES_0_FLUSH: {wanted}")


def test_a_long_value_is_told_by_its_beginning() -> None:
    sentence = refused(overrides=(f"log.level={'x' * 1_000}",))
    assert f'log.level = "{"x" * 90}' in sentence
    assert len(sentence) < 200


@given(st.text(st.sampled_from("a/+#$ü\n \0"), max_size=8))
@example("$share/g/a")
@example("$share/+/a")
@example("+/#")
def test_a_filter_of_a_rule_is_one_of_mqtt(topic_filter: str) -> None:
    try:
        validate_filter(topic_filter)
        is_valid = not topic_filter.startswith("$share/")
    except ProtocolError:
        is_valid = False
    assert (wrong_filter(topic_filter) is None and topic_filter != "") == is_valid


def test_the_manual_shows_a_rule_that_works(tmp_path: Path) -> None:
    names = [info.name for info in msgspec.structs.fields(TopicRule)]
    commented = rf"^# (\[\[topic_rules\]\]|(?:{'|'.join(names)}) = .*)$"
    text, count = re.subn(commented, r"\1", manual(), flags=re.MULTILINE)
    assert count == 1 + len(names)
    (rule,) = load(written(tmp_path, text), (), NOTHING).topic_rules
    assert rule == TopicRule(filter=rule.filter)
    head, _, example_of_rule = manual().partition("# [[topic_rules]]")
    assert "The first rule whose filter matches" in " ".join(head.replace("\n# ", " ").split())
    lines = example_of_rule.splitlines()
    for name in names:
        place = next(i for i, line in enumerate(lines) if line.startswith(f"# {name} = "))
        assert lines[place - 1].startswith("# "), name


def test_changed_rules_are_named(tmp_path: Path) -> None:
    old = load(written(tmp_path, RULE), (), NOTHING)
    assert changed_keys(old, load(None, (), NOTHING)) == ["topic_rules"]
    assert changed_keys(old, old) == []


def test_rules_for_topics_of_clients_are_read_in_their_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[[mqtt_runtime.topic_rewrite]]\nsource_topic = "x/#"\nregex = "^x/(.+)$"\n'
        'dest_topic = "${clientid}/$1"\n'
        '[[mqtt_runtime.topic_rewrite]]\naction = "publish"\nsource_topic = "y"\nregex = "y"\n'
        'dest_topic = "z"\n'
        '[[mqtt_runtime.auto_subscribe]]\ntopic = "in/${username}"\nqos = 2\nno_local = true\n',
    )
    mqtt = load(path, (), NOTHING).mqtt_runtime
    assert mqtt.topic_rewrite == (
        TopicRewrite(source_topic="x/#", regex="^x/(.+)$", dest_topic="${clientid}/$1"),
        TopicRewrite(action="publish", source_topic="y", regex="y", dest_topic="z"),
    )
    assert mqtt.auto_subscribe == (AutoSubscribe(topic="in/${username}", qos=2, no_local=True),)


REWRITE = '[[mqtt_runtime.topic_rewrite]]\nsource_topic = "{}"\nregex = "{}"\ndest_topic = "{}"'
SUBSCRIBE = '[[mqtt_runtime.auto_subscribe]]\ntopic = "{}"'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (REWRITE.format("a/#/b", "a", "b"), "its source_topic is no topic filter"),
        (REWRITE.format("$share/g/a", "a", "b"), "leave out $share"),
        (REWRITE.format("a", "(a", "b"), "its regex cannot be used: missing )"),
        (REWRITE.format("a", "(?=a)", "b"), "invalid perl operator"),
        (REWRITE.format("a", "(((x{100}){100}){100})", "b"), "its regex cannot be used: "),
        (REWRITE.format("a", "(a)", "$2"), "has $2, but its regex has 1 groups"),
        (REWRITE.format("a", "a", "b/#"), "has a wildcard, to which nobody can publish"),
        (REWRITE.format("a", "a", "${user}"), "has ${user}, which stands for nothing"),
        (REWRITE.format("a", "a" * 1_025, "b"), "length <= 1024"),
        ("[[mqtt_runtime.topic_rewrite]]\nsource_topic = 'a'\nregex = 'a'", "has no dest_topic"),
        (SUBSCRIBE.format("a/#/b"), "its topic is no topic filter"),
        (SUBSCRIBE.format("a/${client}"), "has ${client}, which stands for nothing"),
        (SUBSCRIBE.format("a/b${clientid}+"), "its topic is no topic filter"),
        (SUBSCRIBE.format("$queue/a") + "\nno_local = true", "no_local cannot be"),
        (SUBSCRIBE.format("a") + "\nqos = 3", "expected"),
        ('[[mqtt_runtime.shared.groups]]\nstrategy = "local"', "has no name"),
        ('[[mqtt_runtime.shared.groups]]\nname = "a"\nstrategy = "x"', "expected round_robin or"),
        ('[mqtt_runtime.shared]\nstrategy = "x"', "expected round_robin or"),
        (SUBSCRIBE.format("a") + "\nqoss = 1", "did you mean mqtt_runtime.auto_subscribe.qos"),
    ],
)
def test_a_wrong_rule_for_topics_of_clients_is_refused(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = written(tmp_path, text)
    sentence = refused(path)
    assert sentence.startswith(f"{path}:")
    assert reason in sentence


USER = '[[users]]\nusername = "alice"\npassword = "{}"\n'
KEPT = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def test_users_are_read(tmp_path: Path) -> None:
    text = USER.format(KEPT) + USER.format("").replace("alice", "bob") + 'tenant = "acme"\n'
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
    ],
)
def test_users_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as error:
        load(written(tmp_path, text), (), NOTHING)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "value"), [("true", True), ("false", False), ("auto", "auto"), ('"auto"', "auto")]
)
def test_a_word_or_a_truth(given: str, value: object) -> None:
    config = load(None, [f"mqtt_runtime.auth.secret_free_login={given}"], NOTHING)
    assert config.mqtt_runtime.auth.secret_free_login == value
