"""The peers: how they are started, and what is said about one that is missing."""

import shutil
from pathlib import Path

import pytest

from perf import __main__ as command
from perf import brokers
from perf.generator import Load, run
from perf.scenarios import DURABLE_PEERS, LIVE_PEERS


def without(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program be missing."""
    found = shutil.which

    def which(name: str, path: str | None = None) -> str | None:
        return None if name == program else found(name, path=path)

    monkeypatch.setattr(shutil, "which", which)


def test_a_usual_peer_that_is_missing_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without("nats-server", monkeypatch)
    assert [*command._versions([], ["mosquitto", "nats"], {})] == ["mosquitto"]
    assert "nats is left out: nats-server is not installed" in capsys.readouterr().err


def test_a_peer_that_was_named_must_be_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without("nats-server", monkeypatch)
    assert command.main(["--peers", "nats", "--scenario", "dpr100_q1_256"]) == 2
    assert "apt-get install nats-server" in capsys.readouterr().err


def test_every_usual_peer_is_known_and_its_terms_are_told() -> None:
    assert {*LIVE_PEERS, *DURABLE_PEERS} <= {*brokers.PEERS}
    assert {*LIVE_PEERS, *DURABLE_PEERS} - {"robustmq"} <= {*brokers.NOTES}


def test_flush_is_set_for_the_peer_that_has_its_name(tmp_path: Path) -> None:
    assert "storage.flush=always" in brokers.launch("robustmq-always", 1, tmp_path, 2, {}).command
    assert "storage.flush=always" not in brokers.launch("robustmq", 1, tmp_path, 2, {}).command


@pytest.mark.parametrize(
    "load",
    [
        Load("pair", 3, 3, qos=1, window=8, durable=True),
        Load("fan", 2, 1, qos=1, window=20, wildcard=True, backlog=400),
    ],
    ids=["live", "backlog"],
)
@pytest.mark.parametrize("peer", ["mosquitto-persistent", "nats"])
def test_durable_peers_are_clean(peer: str, load: Load, tmp_path: Path) -> None:
    with brokers.running(peer, 1, {}, tmp_path) as broker:
        assert broker.folder.parent == tmp_path
        report = run(load, broker.port, seconds=0.2, options=("--drain", "5"))
    assert report.clean, report.faults()
    assert report.deliveries == report.published > 0
