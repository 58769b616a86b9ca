"""Who belongs to the cluster: secrets and certificates, and what is not listened for without."""

import os
import ssl
from pathlib import Path

import pytest

from robustmq.errors import ConfigError
from robustmq.net.trust import Trust, read_trust
from robustmq.settings.cluster import Cluster
from tests.authority import Authority

SECRET = "a secret of the cluster"


def file(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return os.fspath(path)


def test_without_anything_only_loopback_is_listened_on() -> None:
    trust = read_trust(Cluster())
    assert trust == Trust()
    trust.check_address("127.0.0.1", "cluster.peer_port")
    trust.check_address("::1", "cluster.peer_port")
    with pytest.raises(ConfigError, match=r"cluster\.peer_port is not opened on 0\.0\.0\.0: .*set"):
        trust.check_address("0.0.0.0", "cluster.peer_port")


def test_with_a_secret_every_address_is_listened_on(tmp_path: Path) -> None:
    trust = read_trust(Cluster(secret=SECRET))
    assert trust == Trust(SECRET.encode())
    trust.check_address("0.0.0.0", "cluster.peer_port")
    from_file = read_trust(Cluster(secret_file=file(tmp_path / "secret", f"{SECRET}\n")))
    assert from_file == trust


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Cluster(secret="short"), "has 5 characters, fewer than 16"),
        (Cluster(secret=SECRET, secret_file="x"), "both set; remove one"),
        (Cluster(secret_file="/nowhere/secret"), "cannot be read"),
        (Cluster(tls_cert="a.pem"), "needs all three"),
        (Cluster(tls_cert="a.pem", tls_key="a.key", tls_ca="ca.pem"), "a.key|a.pem"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(settings: Cluster, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_trust(settings)


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    name = file(tmp_path / "secret", SECRET, 0o644)
    with pytest.raises(ConfigError, match=r"read by others \(mode 0644\); chmod 600"):
        read_trust(Cluster(secret_file=name))
    with pytest.raises(ConfigError, match="has 0 characters"):
        read_trust(Cluster(secret_file=file(tmp_path / "empty", "\n")))


def test_with_certificates_both_ends_show_one(tmp_path: Path) -> None:
    Authority(tmp_path).complete()
    trust = read_trust(
        Cluster(
            tls_cert=os.fspath(tmp_path / "server.pem"),
            tls_key=os.fspath(tmp_path / "server.key"),
            tls_ca=os.fspath(tmp_path / "ca.pem"),
        )
    )
    assert trust.is_closed
    for context in (trust.server, trust.client):
        assert context is not None
        assert context.get_ca_certs()
        assert context.verify_mode == ssl.CERT_REQUIRED
