"""The parts of one core's broker, put together; the shell hands in the links and the disk."""

from typing import NamedTuple

from robustmq._kernel.turn import Turn
from robustmq.broker.core import Core
from robustmq.broker.cursors import Cursors
from robustmq.broker.delayed import Delayed
from robustmq.broker.inbox import Inbox
from robustmq.broker.interests import Interests
from robustmq.broker.log_parts import LogParts
from robustmq.broker.placement import Placement
from robustmq.broker.retained import Retained
from robustmq.broker.retained_scans import RetainedScans
from robustmq.broker.router import Fabric, Router
from robustmq.broker.shares import Shares
from robustmq.broker.state import Committer, State
from robustmq.broker.subscriptions import Describe, Subscriptions
from robustmq.broker.topic_logs import InMemory, LogStore, TopicLogs
from robustmq.config import Config, default_rule
from robustmq.policy.admission import Admission
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.table import Table


class Assembly(NamedTuple):
    """One core's broker; `core` is the port, the rest is what it is made of."""

    core: Core
    state: State
    interests: Interests
    router: Router
    retained: Retained
    scans: RetainedScans
    subscriptions: Subscriptions
    shares: Shares
    inbox: Inbox
    cursors: Cursors
    delayed: Delayed
    logs: TopicLogs


def assemble(
    turn: Turn,
    config: Config,
    *,
    core: int,
    epoch: int,
    placement: Placement,
    fabric: Fabric,
    table: Table,
    committer: Committer,
    describe: Describe,
    log_store: LogStore | None = None,
) -> Assembly:
    """Make the broker of core `core` in its life `epoch`; `committer` writes what `table` takes.

    `log_store` has the logs of topics; without one they are in memory.
    """
    runtime = config.runtime
    mqtt = config.mqtt_runtime
    protocol = mqtt.protocol
    state = State(table)
    rules = TopicRules(config.topic_rules, default_rule(config.storage), protocol.route_cache)
    log_parts = LogParts(rules, placement, core)
    interests = Interests(protocol.route_cache, log_parts.core_of)
    router = Router(
        turn,
        core=core,
        epoch=epoch,
        placement=placement,
        fabric=fabric,
        interests=interests,
        log_parts=log_parts,
        state=state,
        max_batch_bytes=runtime.max_batch_bytes,
        pressure_bytes=runtime.pressure_bytes,
    )
    retained = Retained(state, mqtt.retained.max_messages, mqtt.retained.max_bytes, turn.row)
    scans = RetainedScans(
        turn,
        core=core,
        retained=retained,
        fabric=fabric,
        max_batch_bytes=runtime.max_batch_bytes,
        pressure_bytes=runtime.pressure_bytes,
        workers=placement.workers,
    )
    subscriptions = Subscriptions(
        turn,
        workers=placement.workers,
        describe=describe,
        rules=rules,
        route_cache=protocol.route_cache,
        max_topic_aliases=protocol.max_server_topic_aliases,
    )
    inbox = Inbox(turn, state, mqtt.inbox)
    cursors = Cursors(turn, state, inbox, subscriptions.fanout)
    subscriptions.cursors = cursors
    shares = Shares(
        turn,
        placement=placement,
        fabric=fabric,
        subscriptions=subscriptions,
        max_pending=mqtt.shared.max_pending,
    )
    admission = Admission(protocol.max_topic_levels, rules)
    delayed = Delayed(
        turn,
        state,
        admission=admission,
        router=router,
        limits=mqtt.delayed,
        retry_ms=config.storage.retry_ms,
    )
    logs = TopicLogs(
        turn, state, rules=rules, storage=config.storage, store=log_store or InMemory()
    )
    port = Core(
        turn,
        core=core,
        placement=placement,
        fabric=fabric,
        admission=admission,
        interests=interests,
        router=router,
        retained=retained,
        scans=scans,
        subscriptions=subscriptions,
        shares=shares,
        state=state,
        committer=committer,
        inbox=inbox,
        cursors=cursors,
        delayed=delayed,
        logs=logs,
        cursor_interval_ms=config.storage.cursor_interval_ms,
    )
    return Assembly(
        port,
        state,
        interests,
        router,
        retained,
        scans,
        subscriptions,
        shares,
        inbox,
        cursors,
        delayed,
        logs,
    )
