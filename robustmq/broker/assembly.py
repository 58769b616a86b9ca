"""The parts of one core's broker, put together; the shell hands in the links and the disk."""

from collections.abc import Callable
from typing import NamedTuple

from robustmq._kernel.turn import Turn
from robustmq.broker.catalog import Catalog
from robustmq.broker.core import Core
from robustmq.broker.cursors import Cursors
from robustmq.broker.delayed import Delayed
from robustmq.broker.estates import Estates
from robustmq.broker.exclusives import Exclusives
from robustmq.broker.handovers import Handovers
from robustmq.broker.inbox import Inbox
from robustmq.broker.interests import Interests
from robustmq.broker.kept_logs import KeptLogs
from robustmq.broker.legacies import Legacies
from robustmq.broker.log_parts import LogParts
from robustmq.broker.orphans import Orphans
from robustmq.broker.partition_frames import Kind
from robustmq.broker.partition_owner import PartitionOwner
from robustmq.broker.partitions import Partitions
from robustmq.broker.parts import Parts
from robustmq.broker.placement import Placement
from robustmq.broker.retained import Retained
from robustmq.broker.retained_scans import RetainedScans
from robustmq.broker.router import Fabric, Router
from robustmq.broker.share_leads import ShareLeads
from robustmq.broker.shares import Shares
from robustmq.broker.state import Committer, State
from robustmq.broker.subscriptions import Describe, Subscriptions
from robustmq.broker.taps import Taps
from robustmq.broker.topic_logs import LogStore, NoStore, TopicLogs
from robustmq.config import Config, default_rule
from robustmq.policy.access import Access
from robustmq.policy.admission import Admission
from robustmq.policy.shared_groups import SharedGroups
from robustmq.policy.topic_rules import TopicRules
from robustmq.policy.topics import Topics
from robustmq.storage.table import Table


class Assembly(NamedTuple):
    """One core's broker: the port, and what it is made of."""

    core: Core
    parts: Parts


class _Site(NamedTuple):
    """Where parts are made: the core, its surroundings, and what all of them share."""

    turn: Turn
    config: Config
    core: int
    epoch: int
    placement: Placement
    fabric: Fabric
    state: State
    rules: TopicRules
    groups: SharedGroups
    chance: Callable[[int], int]


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
    chance: Callable[[int], int],
    log_store: LogStore | None = None,
) -> Assembly:
    """Make the broker of core `core` in its life `epoch`; `committer` writes what `table` takes.

    `chance(n)` gives some number from 0 to n - 1.

    `log_store` has the logs of topics; without one those whose rule asks for a log are refused.
    """
    route_cache = config.mqtt_runtime.protocol.route_cache
    rules = TopicRules(config.topic_rules, default_rule(config.storage), route_cache)
    groups = SharedGroups(config.mqtt_runtime.shared)
    state = State(table)
    site = _Site(turn, config, core, epoch, placement, fabric, state, rules, groups, chance)
    parts = _parts(site, describe, log_store or NoStore())
    port = Core(
        turn,
        core=core,
        placement=placement,
        fabric=fabric,
        parts=parts,
        committer=committer,
        storage=config.storage,
    )
    return Assembly(port, parts)


def _parts(site: _Site, describe: Describe, log_store: LogStore) -> Parts:
    turn, config, state = site.turn, site.config, site.state
    mqtt = config.mqtt_runtime
    log_parts = LogParts(site.rules, site.placement, site.core, node=config.broker_id)
    interests = Interests(mqtt.protocol.route_cache, log_parts.core_of)
    catalog = log_parts.catalog = _catalog(site, interests)
    orphans = Orphans(
        turn,
        core=site.core,
        placement=site.placement,
        interests=interests,
        state=state,
        send=site.fabric.send,
    )
    router = _router(site, interests, orphans, log_parts)
    access = Access(
        config.acl,
        mqtt.auth.default_permission,
        remembered=mqtt.protocol.route_cache,
        cells=turn.row,
    )
    admission = Admission(mqtt.protocol.max_topic_levels, site.rules, access)
    retained = Retained(state, mqtt.retained, turn.row)
    subscriptions = _subscriptions(site, describe)
    inbox = Inbox(turn, state, mqtt.inbox)
    subscriptions.cursors = Cursors(
        turn, state, inbox, subscriptions.fanout, separate=mqtt.protocol.overlap == "separate"
    )
    handovers = Handovers(
        core=site.core,
        placement=site.placement,
        fabric=site.fabric,
        state=state,
        rules=site.rules,
        pressure_bytes=config.runtime.pressure_bytes,
    )
    logs = TopicLogs(turn, state, rules=site.rules, storage=config.storage, store=log_store)
    kept_logs = KeptLogs(site.core, site.placement, site.fabric, catalog)
    logs.kept = kept_logs.kept
    taps = _taps(site, router, interests)
    partitions = _partitions(site, logs, catalog, taps)
    partitions.handlers[Kind.KEPT] = kept_logs.on_kept
    return Parts(
        state=state,
        admission=admission,
        topics=Topics(mqtt, site.rules),
        interests=interests,
        orphans=orphans,
        router=router,
        retained=retained,
        scans=_scans(site, retained),
        subscriptions=subscriptions,
        shares=_shares(site, subscriptions, handovers, inbox),
        exclusives=Exclusives(
            turn, core=site.core, placement=site.placement, fabric=site.fabric, state=state
        ),
        handovers=handovers,
        inbox=inbox,
        cursors=subscriptions.cursors,
        estates=Estates(turn, state, inbox, subscriptions.cursors),
        legacies=Legacies(turn, state, inbox, subscriptions.cursors),
        delayed=_delayed(site, admission, router),
        logs=logs,
        catalog=catalog,
        kept_logs=kept_logs,
        log_parts=log_parts,
        taps=taps,
        partitions=partitions,
    )


def _catalog(site: _Site, interests: Interests) -> Catalog:
    catalog = Catalog(site.config, site.rules, site.placement)
    catalog.now_ms = lambda: site.turn.now_ms
    catalog.changed.append(lambda name, _before, _after: interests.decide_anew(name))
    return catalog


def _taps(site: _Site, router: Router, interests: Interests) -> Taps:
    kafka = site.config.kafka_runtime
    return Taps(
        site.turn,
        site.state,
        router=router,
        interests=interests,
        qos=kafka.mqtt_qos,
        max_batch_bytes=site.config.runtime.max_batch_bytes,
        max_records_bytes=kafka.max_uncompressed_bytes,
        retry_ms=site.config.storage.retry_ms,
    )


def _partitions(site: _Site, logs: TopicLogs, catalog: Catalog, taps: Taps) -> Partitions:
    owner = PartitionOwner(
        site.turn,
        logs=logs,
        catalog=catalog,
        settings=site.config.kafka_runtime,
        core=site.core,
    )
    catalog.changed += [owner.changed, taps.changed]
    partitions = Partitions(
        site.turn,
        core=site.core,
        epoch=site.epoch,
        placement=site.placement,
        fabric=site.fabric,
        catalog=catalog,
        owner=owner,
        pressure_bytes=site.config.runtime.pressure_bytes,
    )
    taps.source = owner
    partitions.appending = taps.appending
    return partitions


def _router(site: _Site, interests: Interests, orphans: Orphans, log_parts: LogParts) -> Router:
    runtime = site.config.runtime
    return Router(
        site.turn,
        core=site.core,
        epoch=site.epoch,
        placement=site.placement,
        fabric=site.fabric,
        interests=interests,
        orphans=orphans,
        log_parts=log_parts,
        state=site.state,
        stores_qos0=site.rules.store_qos0,
        max_batch_bytes=runtime.max_batch_bytes,
        pressure_bytes=runtime.pressure_bytes,
    )


def _scans(site: _Site, retained: Retained) -> RetainedScans:
    runtime = site.config.runtime
    return RetainedScans(
        site.turn,
        core=site.core,
        retained=retained,
        fabric=site.fabric,
        max_batch_bytes=runtime.max_batch_bytes,
        pressure_bytes=runtime.pressure_bytes,
        workers=site.placement.workers,
    )


def _subscriptions(site: _Site, describe: Describe) -> Subscriptions:
    protocol = site.config.mqtt_runtime.protocol
    return Subscriptions(
        site.turn,
        placement=site.placement,
        describe=describe,
        rules=site.rules,
        route_cache=protocol.route_cache,
        max_topic_aliases=protocol.max_server_topic_aliases,
        separate=protocol.overlap == "separate",
    )


def _leads(
    site: _Site, subscriptions: Subscriptions, handovers: Handovers, inbox: Inbox
) -> ShareLeads:
    return ShareLeads(
        site.turn,
        core=site.core,
        placement=site.placement,
        fabric=site.fabric,
        subscriptions=subscriptions,
        handovers=handovers,
        inbox=inbox,
        state=site.state,
        max_pending=site.config.mqtt_runtime.shared.max_pending,
        groups=site.groups,
        chance=site.chance,
    )


def _shares(
    site: _Site, subscriptions: Subscriptions, handovers: Handovers, inbox: Inbox
) -> Shares:
    return Shares(
        core=site.core,
        placement=site.placement,
        fabric=site.fabric,
        subscriptions=subscriptions,
        leads=_leads(site, subscriptions, handovers, inbox),
        handovers=handovers,
        inbox=inbox,
        cursors=subscriptions.cursors,
        state=site.state,
        groups=site.groups,
        most=site.config.mqtt_runtime.inbox.max_messages // 4,
    )


def _delayed(site: _Site, admission: Admission, router: Router) -> Delayed:
    return Delayed(
        site.turn,
        site.state,
        admission=admission,
        router=router,
        limits=site.config.mqtt_runtime.delayed,
        retry_ms=site.config.storage.retry_ms,
    )
