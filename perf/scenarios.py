"""The scenarios that are measured: one table, each row a load and what is asked of robustmq in it.

Names: fo = fan-out (publishers to all subscribers), fi = fan-in (publishers to one wildcard
subscriber), pr = pairs, qN = QoS end to end, then bytes of payload; b16 = 16 publishes a send,
w1 = window 1 (each client waits for its acknowledgement and its delivery); rate = open loop at so
many messages a second over 10 pairs; rfo100 = open loop, 1 to 100, so many deliveries a second.

The group "durable", measured when it is asked for: the subscribers' sessions outlive their
connections. dpr = pairs, dfi200 = 200 publishers to one wildcard subscriber, drate = open loop,
backlog = 100,000 messages that were published while their subscriber (10 subscribers) was away.
"""

from dataclasses import dataclass, replace

from perf.generator import Load

FAN_OUT = 8.0
OTHERS = 2.0
DURABLE = 2.0
ALWAYS_RATE = 50_000.0
DRAIN_RATE = 100_000.0
BACKLOG = 100_000
LIVE_PEERS = ("robustmq", "mosquitto")
DURABLE_PEERS = ("robustmq", "robustmq-always", "mosquitto-persistent", "nats")

# What a closed loop keeps under way (deliveries of the one publisher; messages of each publisher):
# enough that a fast broker always finds work in its sockets, little enough that none is flooded.
DELIVERIES_FAN_OUT = 25_600
WINDOW_FAN_IN = 32
WINDOW_BATCHES = 1024


Rates = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A row of the table.

    `cpu_ratio`: the peer's CPU time for a delivery must be at least this many times ours.
    `p99_bar`: our p99 must not be above the peer's. `target_us`: the CPU time for a delivery (for a
    connection in conn10k) that the complete broker aims for, in microseconds; 0 when there is none.
    `group` is "live" or "durable". `live`: the scenario that is the same with live sessions only;
    our CPU time for a delivery must be at most DURABLE times that. `rates`: what must be reached
    each second by a peer (of ours), acknowledged messages, or deliveries where there is a backlog.
    """

    name: str
    load: Load
    cpu_ratio: float = 0.0
    p99_bar: bool = False
    target_us: float = 0.0
    group: str = "live"
    live: str = ""
    rates: Rates = ()


def _fan_out(name: str, subscribers: int, qos: int, payload: int, target: float) -> Scenario:
    load = Load("fan", 1, subscribers, qos, payload, DELIVERIES_FAN_OUT // subscribers)
    return Scenario(name, load, cpu_ratio=FAN_OUT, target_us=target)


def _fan_in(name: str, qos: int, payload: int, target: float) -> Scenario:
    load = Load("fan", 100, 1, qos, payload, WINDOW_FAN_IN, wildcard=True)
    return Scenario(name, load, cpu_ratio=OTHERS, target_us=target)


def _pairs(name: str, qos: int, target: float) -> Scenario:
    load = Load("pair", 100, 100, qos, 256, WINDOW_FAN_IN)
    return Scenario(name, load, cpu_ratio=OTHERS, target_us=target)


def _rate(name: str, rate: float, qos: int = 0, p99_bar: bool = False) -> Scenario:
    return Scenario(name, Load("pair", 10, 10, qos, 256, rate=rate, realtime=True), p99_bar=p99_bar)


def _rate_fan_out(name: str, deliveries: float, target: float = 0.0) -> Scenario:
    return Scenario(
        name, Load("fan", 1, 100, 0, 256, rate=deliveries / 100, realtime=True), target_us=target
    )


def _durable(name: str, load: Load, live: str = "", rates: Rates = ()) -> Scenario:
    # MQTT 3.1.1, because not all of the peers speak 5.
    return Scenario(name, replace(load, durable=True), group="durable", live=live, rates=rates)


def _many(window: int, rates: Rates = ()) -> Scenario:
    load = Load("fan", 200, 1, 1, 64, window, wildcard=True)
    return _durable(f"dfi200_q1_64_w{window}", load, rates=rates)


SCENARIOS: tuple[Scenario, ...] = (
    _fan_out("fo100_q0_64", 100, 0, 64, 0.0),
    _fan_out("fo100_q0_256", 100, 0, 256, 0.12),
    _fan_out("fo100_q0_1024", 100, 0, 1024, 0.0),
    _fan_out("fo100_q1_256", 100, 1, 256, 0.18),
    _fan_out("fo1000_q0_64", 1000, 0, 64, 0.0),
    _fan_in("fi100_q0_64", 0, 64, 0.0),
    _fan_in("fi100_q1_256", 1, 256, 1.5),
    _pairs("pr100_q0_256", 0, 0.0),
    _pairs("pr100_q1_256", 1, 2.2),
    Scenario("pr10_q0_64_b16", Load("pair", 10, 10, 0, 64, WINDOW_BATCHES, 16), cpu_ratio=OTHERS),
    Scenario("pr500_q1_64_w1", Load("pair", 500, 500, 1, 64, 1), target_us=8.5),
    _rate("rate1k_q0", 1_000),
    _rate("rate10k_q0", 10_000, p99_bar=True),
    _rate("rate50k_q0", 50_000),
    _rate("rate10k_q1", 10_000, qos=1, p99_bar=True),
    _rate_fan_out("rfo100_10k_q0", 10_000),
    _rate_fan_out("rfo100_50k_q0", 50_000, 2.2),
    Scenario("conn10k", Load("connect", 0, 10_000), target_us=20.0),
    _durable("dpr100_q1_256", Load("pair", 100, 100, 1, 256, WINDOW_FAN_IN), "pr100_q1_256"),
    _durable(
        "dfi100_q1_256",
        Load("fan", 100, 1, 1, 256, WINDOW_FAN_IN, wildcard=True),
        "fi100_q1_256",
    ),
    _many(1),
    _many(8),
    _many(32, (("robustmq-always", ALWAYS_RATE),)),
    _durable("drate10k_q1", Load("pair", 10, 10, 1, 256, rate=10_000, realtime=True)),
    _durable(
        "backlog1_q1_64",
        Load("fan", 10, 1, 1, 64, 100, wildcard=True, backlog=BACKLOG),
        rates=(("robustmq", DRAIN_RATE),),
    ),
    _durable("backlog10_q1_64", Load("pair", 10, 10, 1, 64, 100, backlog=BACKLOG)),
)


def select(names: str | None) -> list[Scenario]:
    """The scenarios of a comma-separated list of names and groups; without names those of "live".

    "durable" brings the live twins of its scenarios with it, which its bars need. ValueError for
    an unknown name.
    """
    table = {scenario.name: scenario for scenario in SCENARIOS}
    twins = [table[scenario.live] for scenario in SCENARIOS if scenario.live]
    groups = {
        "live": [scenario for scenario in SCENARIOS if scenario.group == "live"],
        "durable": twins + [scenario for scenario in SCENARIOS if scenario.group == "durable"],
    }
    words = (names or "live").split(",")
    unknown = [name for name in words if name not in table and name not in groups]
    if unknown:
        known = ", ".join([*groups, *table])
        raise ValueError(f"unknown scenario {', '.join(unknown)}; there are {known}")
    found = [one for word in words for one in groups.get(word) or [table[word]]]
    return list(dict.fromkeys(found))


def peers(scenarios: list[Scenario]) -> list[str]:
    """The peers for these scenarios when the user names none."""
    durable = any(scenario.group == "durable" for scenario in scenarios)
    live = any(scenario.group == "live" for scenario in scenarios) and not durable
    return [*(LIVE_PEERS if live else ()), *(DURABLE_PEERS if durable else ())]
