"""Certificates in files that change: what is taken, when, and what stays."""

import shutil
import ssl
from pathlib import Path

import pytest

from robustmq.errors import ConfigError
from robustmq.net.certificates import Certificates
from robustmq.settings.tls import MqttTls
from tests import authority


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "files")
    return tmp_path / "files"


def settings(directory: Path, *names: str, **more: object) -> MqttTls:
    return MqttTls(
        tls_cert=tuple(str(directory / f"{name}.pem") for name in names or ("server",)),
        tls_key=tuple(str(directory / f"{name}.key") for name in names or ("server",)),
        **more,  # type: ignore[arg-type]
    )


def replace(directory: Path, name: str) -> None:
    """Put a pair in the place of the server's."""
    for kind in ("pem", "key"):
        shutil.copy(directory / f"{name}.{kind}", directory / f"part.{kind}")
        (directory / f"part.{kind}").replace(directory / f"server.{kind}")


def test_what_does_not_change_is_not_read_again(directory: Path) -> None:
    certificates = Certificates(settings(directory))
    assert not certificates.renew()
    assert not certificates.renew(at_once=True)
    assert certificates.files[0].names == ("localhost",)


def test_a_change_is_taken_when_it_was_seen_twice(directory: Path) -> None:
    certificates = Certificates(settings(directory))
    context = certificates.context
    replace(directory, "other")
    assert [certificates.renew() for _ in range(3)] == [False, True, False]
    assert certificates.files[0].names == ("other.example", "*.wild.example")
    # The same context: it has the keys of the tickets.
    assert certificates.context is context


def test_a_change_is_taken_at_once_when_somebody_asks(directory: Path) -> None:
    certificates = Certificates(settings(directory))
    replace(directory, "other")
    assert certificates.renew(at_once=True)


def test_half_a_change_is_waited_for(directory: Path) -> None:
    certificates = Certificates(settings(directory))
    shutil.copy(directory / "other.key", directory / "server.key")
    assert not certificates.renew()
    shutil.copy(directory / "other.pem", directory / "server.pem")
    assert [certificates.renew() for _ in range(2)] == [False, True]


def test_what_is_wrong_is_said_once_and_the_old_stays(directory: Path) -> None:
    certificates = Certificates(settings(directory))
    before = certificates.files
    replace(directory, "expired")
    assert not certificates.renew()
    with pytest.raises(ConfigError, match="has expired on"):
        certificates.renew()
    assert not certificates.renew()
    assert certificates.files == before


def test_a_file_that_is_gone_is_said_and_may_come_back(directory: Path) -> None:
    certificates = Certificates(settings(directory))
    (directory / "server.pem").rename(directory / "away.pem")
    with pytest.raises(ConfigError, match="cannot be read"):
        certificates.renew(at_once=True)
    (directory / "away.pem").rename(directory / "server.pem")
    assert certificates.renew(at_once=True)


def test_new_authorities_make_new_contexts(directory: Path) -> None:
    ca = str(directory / "ca.pem")
    certificates = Certificates(settings(directory, verify="required", ca_file=ca))
    context = certificates.context
    before = context.get_ca_certs()
    for name in ("ca.pem", "ca.key"):
        (directory / name).unlink()
    authority.made(directory)
    assert certificates.renew(at_once=True)
    assert certificates.context is not context
    trusted = certificates.context.get_ca_certs()
    assert len(trusted) == 1
    assert trusted != before


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"ciphers": "NONE-SUCH"}, "OpenSSL knows no cipher"),
        ({"verify": "optional"}, "there is no ca_file"),
        ({"verify": "required", "ca_file": "server.key"}, "holds no certificates"),
        ({"verify": "required", "ca_file": "none"}, "cannot be read"),
    ],
)
def test_what_cannot_be_used(directory: Path, more: dict[str, object], why: str) -> None:
    if "ca_file" in more:
        more = {**more, "ca_file": str(directory / str(more["ca_file"]))}
    with pytest.raises(ConfigError, match=why):
        Certificates(settings(directory, **more))


def test_each_certificate_needs_its_key(directory: Path) -> None:
    with pytest.raises(ConfigError, match="1 tls_cert and 0 tls_key"):
        Certificates(MqttTls(tls_cert=settings(directory).tls_cert))


def test_versions_ciphers_and_what_is_off(directory: Path) -> None:
    context = Certificates(
        settings(directory, min_version="1.3", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    ).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in {each["name"] for each in context.get_ciphers()}
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
