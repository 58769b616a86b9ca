"""Kafka on one worker: its connections, its handlers, and its frames between cores."""

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from robustmq.broker.core import Core
from robustmq.broker.ledger_api import Ledger
from robustmq.broker.parts import Parts
from robustmq.broker.placement import Placement
from robustmq.broker.rights import Rights
from robustmq.errors import Refused
from robustmq.kafka.connection import Connection
from robustmq.kafka.coordination import Coordination
from robustmq.kafka.dispatch import handlers
from robustmq.kafka.front import Front
from robustmq.kafka.protocol import Kafka, Room
from robustmq.meta.commands import Expectation
from robustmq.meta.image import Image
from robustmq.meta.records import Record
from robustmq.policy.authority import Authority
from robustmq.policy.principal import Peer
from robustmq.workers import log
from robustmq.workers.admittance import Admittance
from robustmq.workers.inheritance import Inheritance
from robustmq.workers.kafka_brokers import Brokers
from robustmq.workers.links import Links

_log = log.EventLog("kafka")

_ALONE: Final = "alone"


def _room(folder: Path) -> Room:
    """Ask the system how full the disk is."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return Room()
    return Room(found.total, found.free)


def open_kafka(
    inheritance: Inheritance,
    core: Core,
    *,
    placement: Placement,
    links: Links,
    admittance: Admittance,
    image: Image,
    parts: Parts,
    ledger: Ledger,
) -> Front:
    """Put Kafka together for one worker."""
    config = inheritance.config
    brokers = Brokers(config, inheritance.addresses, placement, image)
    kafka = Kafka(
        core,
        config.kafka_runtime,
        core=inheritance.index,
        cluster=brokers,
        partitions=core.partitions,
        catalog=parts.catalog,
        ledger=ledger,
        authority=Authority(parts.admission.access, config.mqtt_runtime.protocol.route_cache),
    )
    kafka.room = partial(_room, Path(config.data_path))
    grants = parts.admission.access.grants
    kafka.rights = Rights(grants, admittance.quotas, lambda: parts.catalog.registrar)

    def change(
        records: Sequence[Record],
        expected: Sequence[Expectation],
        done: Callable[[Refused | None], None],
    ) -> None:
        # Whoever has the way to the metadata comes later.
        parts.catalog.registrar.change(records, expected, done)

    kafka.credentials = admittance.credentials(change)
    table = handlers(kafka)
    epoch = inheritance.region.state(inheritance.index).epoch
    kafka.coordination = Coordination(kafka, table, links.send, epoch)
    alone = config.mqtt_runtime.auth.certificate_as_username == _ALONE

    def is_certified(peer: Peer) -> bool:
        return alone and peer.certified is not None

    return Front(
        kafka,
        table,
        kafka.coordination,
        admittance.quotas,
        logins=admittance.logins,
        gate=admittance.gate,
        tenants=frozenset(config.mqtt_runtime.auth.tenants),
        is_certified=is_certified,
        complain=_complain,
        clock_ns=time.monotonic_ns,
        pressure_bytes=config.runtime.pressure_bytes,
    )


def _complain(connection: Connection, why: str) -> None:
    principal = connection.principal
    _log.info(
        "client sent away",
        user=principal.username if principal is not None else None,
        address=connection.peer.address,
        listener=connection.peer.listener,
        reason=why,
    )
