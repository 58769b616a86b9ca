"""The configuration: TOML, environment and command line become immutable structs.

Later sources win: embedded defaults, the file, `ROBUST_MQ_SERVER_<SECTION>_<KEY>` variables, then
`--set section.key=value`. Names are those of RobustMQ. The description beside each key is the
manual; `manual()` writes it out as the commented file that `config/server.toml` holds. A key that
nobody reads is an error, never ignored.
"""

import difflib
import inspect
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, field

from robustmq.errors import ConfigError

Role: TypeAlias = Literal["meta", "broker", "engine"]

WORKERS_MAX: Final = 64
VARIABLE_PREFIX: Final = "ROBUST_MQ_SERVER_"
GIB: Final = 1 << 30
U32_MAX: Final = 0xFFFFFFFF


def _in(low: float, high: float) -> Meta:
    return Meta(ge=low, le=high)


class Runtime(Struct, frozen=True, kw_only=True):
    """`[runtime]`: The processes of this node and the memory between them.

    workers: Workers, 1 to 64, or "auto": one per core that the supervisor may run on.
    pin: Keep each worker on a core of its own when there are enough; switch it off where other
        programs are busy on the same cores.
    ring_bytes: Bytes of the ring from one core to another, a power of two from 64 KiB; 0: 256 MiB
        divided by the number of rings, at least 256 KiB, at most 4 MiB.
    heartbeat_timeout_ms: Milliseconds without a sign of life until a process is replaced.
    start_timeout_ms: Milliseconds that a new process may take until its first sign of life.
    drain_timeout_ms: Milliseconds that workers may take to stop; then they are killed.
    restart_backoff_ms: Milliseconds until a process that ended is restarted; doubled each time.
    restart_backoff_max_ms: Milliseconds that the wait before a restart never exceeds.
    max_batch_bytes: Bytes of one record batch; a turn that has more makes several.
    pressure_bytes: Bytes waiting for another core at which its publishers are paused.
    turn_frames_bytes: Bytes of frames that a core takes from one ring in a turn.
    """

    workers: Literal["auto"] | Annotated[int, _in(1, WORKERS_MAX)] = "auto"
    pin: bool = True
    ring_bytes: Annotated[int, _in(0, GIB)] = 0
    heartbeat_timeout_ms: Annotated[int, _in(200, 600_000)] = 5_000
    start_timeout_ms: Annotated[int, _in(200, 600_000)] = 30_000
    drain_timeout_ms: Annotated[int, _in(0, 600_000)] = 5_000
    restart_backoff_ms: Annotated[int, _in(1, 60_000)] = 200
    restart_backoff_max_ms: Annotated[int, _in(1, 600_000)] = 10_000
    max_batch_bytes: Annotated[int, _in(4_096, GIB)] = 1_048_576
    pressure_bytes: Annotated[int, _in(65_536, GIB)] = 8_388_608
    turn_frames_bytes: Annotated[int, _in(65_536, GIB)] = 4_194_304


class Log(Struct, frozen=True, kw_only=True):
    """`[log]`: What the processes say about themselves, on standard error.

    level: The least that is written: debug, info, warning or error. SIGHUP applies a change.
    format: human, json, or auto: human on a terminal and json elsewhere.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"


class ClusterLimit(Struct, frozen=True, kw_only=True):
    """`[cluster_limit]`: What this node accepts in all.

    max_network_connection: Connections that a worker may hold; 0: as many as the limit of open
        files allows.
    """

    max_network_connection: Annotated[int, _in(0, 100_000_000)] = 0


class MqttServer(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.server]`: Where MQTT listens.

    tcp_port: TCP port of MQTT; 0: any free port, which is printed at start.
    """

    tcp_port: Annotated[int, _in(0, 65_535)] = 1883


class MqttKeepAlive(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.keep_alive]`: How long a client may be silent (MQTT5 3.1.2.10).

    max_time: Seconds; an MQTT 5 client that asks for more, or for none, is told this instead.
    default_timeout: Keep-alive times this is the silence that ends a connection.
    """

    max_time: Annotated[int, _in(1, 65_535)] = 3_600
    default_timeout: Annotated[float, _in(1.0, 10.0)] = 1.5


class MqttProtocol(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.protocol]`: The limits of MQTT sessions, connections and packets.

    max_session_expiry_interval: Seconds that a session outlives its connection at most.
    default_session_expiry_interval: Seconds for MQTT 3 clients that connect with clean session 0.
    topic_alias_max: Topic aliases that a client may use toward the server.
    max_packet_size: Bytes of the largest packet that a client may send.
    receive_max: QoS 1 and 2 messages that a client may have unacknowledged.
    max_message_expiry_interval: Seconds that any message lives at most; 0: no cap.
    max_inflight: QoS 1 and 2 messages unacknowledged toward a client at most.
    max_queued_messages: Messages that wait for one session.
    max_queued_bytes: Bytes of the messages that wait for one session.
    max_outbox_bytes: Bytes unsent to a client beyond which QoS 0 messages are dropped.
    connect_timeout_ms: Milliseconds from the accepted connection to its CONNECT.
    linger_timeout_ms: Milliseconds that a client has to take the last bytes and end its side.
    max_connect_size: Bytes of the largest CONNECT packet; max_packet_size bounds it too.
    max_topic_levels: Levels of a topic name or filter.
    max_subscriptions: Subscriptions of one session.
    max_server_topic_aliases: Topic aliases that the server uses toward one client.
    publisher_route_cache: Topics whose routes one publisher's connection remembers.
    route_cache: Topics whose routes a core remembers.
    """

    max_session_expiry_interval: Annotated[int, _in(0, U32_MAX)] = 604_800
    default_session_expiry_interval: Annotated[int, _in(0, U32_MAX)] = 604_800
    topic_alias_max: Annotated[int, _in(0, 65_535)] = 1_024
    max_packet_size: Annotated[int, _in(1_024, 268_435_460)] = 10_485_760
    receive_max: Annotated[int, _in(1, 65_535)] = 1_024
    max_message_expiry_interval: Annotated[int, _in(0, U32_MAX)] = 0
    max_inflight: Annotated[int, _in(1, 65_535)] = 1_000
    max_queued_messages: Annotated[int, _in(1, 1_000_000_000)] = 100_000
    max_queued_bytes: Annotated[int, _in(1_024, 1 << 40)] = 67_108_864
    max_outbox_bytes: Annotated[int, _in(4_096, GIB)] = 4_194_304
    connect_timeout_ms: Annotated[int, _in(10, 600_000)] = 10_000
    linger_timeout_ms: Annotated[int, _in(0, 600_000)] = 2_000
    max_connect_size: Annotated[int, _in(128, 268_435_460)] = 262_144
    max_topic_levels: Annotated[int, _in(1, 65_535)] = 128
    max_subscriptions: Annotated[int, _in(1, 10_000_000)] = 10_000
    max_server_topic_aliases: Annotated[int, _in(0, 65_535)] = 1_024
    publisher_route_cache: Annotated[int, _in(1, 1_000_000)] = 1_024
    route_cache: Annotated[int, _in(16, 100_000_000)] = 65_536


class MqttRetained(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.retained]`: The retained messages of one core (MQTT5 3.3.1.3).

    max_messages: Retained messages per core.
    max_bytes: Bytes of retained messages per core.
    """

    max_messages: Annotated[int, _in(0, 1_000_000_000)] = 1_000_000
    max_bytes: Annotated[int, _in(0, 1 << 40)] = GIB


class MqttShared(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.shared]`: Shared subscriptions (MQTT5 4.8.2).

    max_pending: Messages that a group without a ready member keeps.
    """

    max_pending: Annotated[int, _in(0, 1_000_000_000)] = 100_000


class MqttRuntime(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime]`: MQTT 3.1, 3.1.1 and 5.0."""

    server: MqttServer = field(default_factory=MqttServer)
    keep_alive: MqttKeepAlive = field(default_factory=MqttKeepAlive)
    protocol: MqttProtocol = field(default_factory=MqttProtocol)
    retained: MqttRetained = field(default_factory=MqttRetained)
    shared: MqttShared = field(default_factory=MqttShared)


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration; the keys here stand before the first section of the file.

    cluster_name: The cluster that this node belongs to, 1 to 255 characters.
    broker_id: This node's number in the cluster.
    broker_ip: The IPv4 or IPv6 address that every port is bound to; 0.0.0.0: all of IPv4.
    roles: Parts of a node: meta, broker, engine. In this version all of them always run.
    http_port: TCP port of /metrics and /health; 0: any free port, which is printed at start.
    data_path: The directory of this node's data; made when missing.
    """

    cluster_name: Annotated[str, Meta(min_length=1, max_length=255)] = "robust_mq_cluster_default"
    broker_id: Annotated[int, _in(0, (1 << 63) - 1)] = 1
    broker_ip: str = "0.0.0.0"
    roles: Annotated[tuple[Role, ...], Meta(min_length=1)] = ("meta", "broker", "engine")
    http_port: Annotated[int, _in(0, 65_535)] = 58080
    data_path: Annotated[str, Meta(min_length=1)] = "./data"
    runtime: Runtime = field(default_factory=Runtime)
    log: Log = field(default_factory=Log)
    cluster_limit: ClusterLimit = field(default_factory=ClusterLimit)
    mqtt_runtime: MqttRuntime = field(default_factory=MqttRuntime)


Key: TypeAlias = tuple[str, ...]
S = TypeVar("S", bound=Struct)


class Setting(NamedTuple):
    """A value that somebody gave, and where: "config/server.toml:3", a variable, or "--set"."""

    key: Key
    value: object
    place: str


class _Known(NamedTuple):
    type: object
    default: object


def _walk(struct: type[Struct], at: Key = ()) -> Iterator[tuple[Key, _Known | type[Struct]]]:
    """Yield every key and section in the order of the file: keys before subsections."""
    infos = msgspec.structs.fields(struct)
    sections = [i for i in infos if isinstance(i.type, type) and issubclass(i.type, Struct)]
    for info in infos:
        if info not in sections:
            yield (*at, info.name), _Known(info.type, info.default)
    for info in sections:
        yield (*at, info.name), info.type
        yield from _walk(info.type, (*at, info.name))


_NAMES: Final = dict(_walk(Config))
KEYS: Final = {key: known for key, known in _NAMES.items() if isinstance(known, _Known)}
SECTIONS: Final = {key: cls for key, cls in _NAMES.items() if not isinstance(cls, _Known)}
VARIABLES: Final = {VARIABLE_PREFIX + "_".join(key).upper(): key for key in KEYS}


def load(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read, merge and check the configuration.

    `path` is a TOML file, None for the embedded defaults alone; `overrides` are the texts of
    `--set`, "section.key=value"; `environment` is os.environ unless given. Raises ConfigError with
    one sentence that names the place, the key and what to do.
    """
    settings: dict[Key, Setting] = {}
    sources = (
        _from_file(Path(path)) if path is not None else (),
        _from_variables(os.environ if environment is None else environment),
        _from_overrides(overrides),
    )
    for source in sources:
        settings.update((setting.key, setting) for setting in source)
    config = _build(Config, (), {key: _checked(each) for key, each in settings.items()})
    _check_together(config, settings)
    return config


def changed_keys(old: Config, new: Config) -> list[str]:
    """Name the keys whose values differ, as "section.key", in the order of the file."""
    return [".".join(key) for key in KEYS if _value(old, key) != _value(new, key)]


def manual() -> str:
    """Write the embedded defaults as a commented TOML file, the text of config/server.toml."""
    lines = [f"# {line}" for line in _MANUAL_HEAD]
    texts = _descriptions(Config)
    for key, known in _NAMES.items():
        if isinstance(known, _Known):
            lines += ["", *_comment(texts[key[-1]] + _bounds(known.type))]
            lines.append(f"{key[-1]} = {_toml(known.default)}")
        elif texts := _descriptions(known):
            lines += ["", "", *_comment(texts[""]), f"[{'.'.join(key)}]"]
    return "\n".join(lines) + "\n"


def _descriptions(struct: type[Struct]) -> dict[str, str]:
    """Read a struct's docstring: its title at "" and the text of each key; {} without keys."""
    title, _, rest = inspect.cleandoc(struct.__doc__ or "").partition("\n")
    found = re.findall(r"^(\w+): (.*(?:\n +.*)*)", rest, re.MULTILINE)
    texts = {name: " ".join(text.split()) for name, text in found}
    return {"": title.partition(": ")[2], **texts} if texts else {}


def _bounds(annotation: object) -> str:
    metas = [m for m in getattr(annotation, "__metadata__", ()) if m.ge is not None]
    return f" ({_toml(metas[0].ge)} to {_toml(metas[0].le)})" if metas else ""


_MANUAL_HEAD: Final = (
    "The configuration of a node: every key with its default.",
    "A variable ROBUST_MQ_SERVER_<SECTION>_<KEY> wins over this file, and",
    "--set section.key=value wins over both. Unknown keys are refused.",
)


def _from_file(path: Path) -> Iterator[Setting]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"the configuration file {path} cannot be read: {reason}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    yield from _flatten(document, (), str(path), text)


def _flatten(table: Mapping[str, object], at: Key, path: str, text: str) -> Iterator[Setting]:
    for name, value in table.items():
        key = (*at, name)
        place = f"{path}:{_line_of(text, key)}"
        if key in KEYS:
            yield Setting(key, value, place)
        elif key not in SECTIONS:
            raise _unknown(key, place)
        elif isinstance(value, dict):
            yield from _flatten(value, key, path, text)
        else:
            raise ConfigError(f"{place}: {'.'.join(key)} is a section, not a key")


def _line_of(text: str, key: Key) -> int:
    """Find the line that sets the key or opens the section; 1 when it is written unusually."""
    section, name = "", ".".join(key)
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            section = header[1]
        assignment = re.match(r"\s*([\w.\-]+)\s*=", line)
        here = f"{section}.{assignment[1]}".lstrip(".") if assignment else section
        if here == name or here.startswith(f"{name}."):
            return number
    return 1


def _from_variables(environment: Mapping[str, str]) -> Iterator[Setting]:
    for variable, text in sorted(environment.items()):
        if not variable.startswith(VARIABLE_PREFIX):
            continue
        key = VARIABLES.get(variable)
        if key is None:
            close = difflib.get_close_matches(variable, VARIABLES, n=1)
            near = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"the variable {variable} names no key of the configuration{near}")
        yield Setting(key, _parse(text, key), variable)


def _from_overrides(overrides: Iterable[str]) -> Iterator[Setting]:
    for override in overrides:
        name, equals, text = override.partition("=")
        key = tuple(part.strip() for part in name.split("."))
        if not equals:
            raise ConfigError(f"--set {override}: it must have the form section.key=value")
        if key in SECTIONS:
            raise ConfigError(f"--set {override}: {name} is a section; name a key in it")
        if key not in KEYS:
            raise _unknown(key, "--set")
        yield Setting(key, _parse(text.strip(), key), "--set")


def _parse(text: str, key: Key) -> object:
    """Read a TOML value; text that is none, or any text for a string key, stands for itself."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = document["value"] if len(document) == 1 else text
    wants_text = isinstance(KEYS[key].default, str) and not isinstance(value, str)
    # `workers` alone takes a word or a number.
    return text if wants_text and key != ("runtime", "workers") else value


def _checked(setting: Setting) -> object:
    try:
        return msgspec.convert(setting.value, KEYS[setting.key].type)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at")[0].replace("`", "").lower()
        if reason.startswith("invalid enum"):
            words = [word for word in _words(KEYS[setting.key].type) if isinstance(word, str)]
            reason = f"expected {' or '.join(words)}"
        given = f"{'.'.join(setting.key)} = {_toml(setting.value)}"
        raise ConfigError(f"{setting.place}: {given} is refused: {reason}") from error


def _words(annotation: object) -> Iterator[object]:
    """Yield the literals that a type allows, and "a number" when it takes one."""
    if annotation is int:
        yield "a number"
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for inner in get_args(annotation):
            yield from _words(inner)


def _build(struct: type[S], at: Key, values: Mapping[Key, object]) -> S:
    arguments: dict[str, object] = {}
    for info in msgspec.structs.fields(struct):
        key = (*at, info.name)
        if key in SECTIONS:
            arguments[info.name] = _build(SECTIONS[key], key, values)
        elif key in values:
            arguments[info.name] = values[key]
    return struct(**arguments)


def _check_together(config: Config, settings: Mapping[Key, Setting]) -> None:
    """Check what a type cannot say and what concerns more than one key."""
    runtime, protocol = config.runtime, config.mqtt_runtime.protocol
    ring = runtime.ring_bytes
    faults: list[tuple[bool, str, str]] = [
        (not _is_address(config.broker_ip), "broker_ip", "is not an IPv4 or IPv6 address"),
        (len(set(config.roles)) < len(config.roles), "roles", "names a role twice"),
        ("\0" in config.data_path, "data_path", "holds a zero byte"),
        (
            ring != 0 and (ring < 65_536 or ring & (ring - 1) != 0),
            "runtime.ring_bytes",
            "is neither 0 nor a power of two from 65536",
        ),
        (
            runtime.restart_backoff_max_ms < runtime.restart_backoff_ms,
            "runtime.restart_backoff_max_ms",
            "is below runtime.restart_backoff_ms",
        ),
        (
            protocol.default_session_expiry_interval > protocol.max_session_expiry_interval,
            "mqtt_runtime.protocol.default_session_expiry_interval",
            "is above mqtt_runtime.protocol.max_session_expiry_interval",
        ),
    ]
    for wrong, name, sentence in faults:
        if wrong:
            key = tuple(name.split("."))
            place = settings[key].place if key in settings else "the default"
            raise ConfigError(f"{place}: {name} = {_toml(_value(config, key))} {sentence}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _unknown(key: Key, place: str) -> ConfigError:
    """Name the known key or section that is nearest by its full name or by its last part."""

    def likeness(known: Key) -> tuple[float, float]:
        full = difflib.SequenceMatcher(None, ".".join(known), ".".join(key)).ratio()
        last = difflib.SequenceMatcher(None, known[-1], key[-1]).ratio()
        return max(full, last), full + last

    best = max(_NAMES, key=likeness)
    near = f"; did you mean {'.'.join(best)}?" if likeness(best)[0] >= 0.6 else ""
    return ConfigError(f"{place}: the configuration has no {'.'.join(key)}{near}")


def _value(config: Struct, key: Key) -> object:
    value: object = config
    for part in key:
        value = getattr(value, part)
    return value


def _comment(text: str) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > 96:
            yield line
            line = "#"
        line += " " + word
    yield line


def _toml(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, (str, bool)):
        return msgspec.json.encode(value).decode()
    return str(value)
