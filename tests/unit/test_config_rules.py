"""Tables of the configuration that are rules: their order, their defaults, what is refused."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robustmq.cli.supervisor import main
from robustmq.config import (
    Config,
    TopicRule,
    changed_keys,
    load,
    manual,
)
from robustmq.errors import ProtocolError
from robustmq.message.topic import validate_filter
from robustmq.settings.topics import AutoSubscribe, TopicRewrite, wrong_filter
from tests.unit.settings import NOTHING, refused, written

ROOT = Path(__file__).resolve().parents[2]


RULE = '[[topic_rules]]\nfilter = "a/#"\n'
NAMED = f"{RULE}retention_ms = 5\nkafka_topic = 'k'\n"


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
        (f"{RULE}kafka_topic = 'k'\nown_shard = true", 3, "leave own_shard out"),
        (f"{RULE}kafka_topic = 'k'", 3, "is kept nowhere without a bound of retention"),
        (f"{RULE}kafka_topic = 'a/b'", 3, "topic_rules.kafka_topic"),
        (f"{NAMED}{NAMED.replace('a/#', 'b')}", 5, "{path}:1 has the same kafka_topic"),
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
    head, begin, rest = manual().partition("# [[topic_rules]]")
    # Up to the next list of tables.
    shown, _, _ = rest.partition("# [[")
    text, count = re.subn(commented, r"\1", head + begin + shown, flags=re.MULTILINE)
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
