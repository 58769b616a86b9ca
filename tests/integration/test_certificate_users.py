"""Users whom their certificates name, over TLS: alone, with a password, and without either."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from robustmq.mqtt.packets import V5, Connack, Connect
from robustmq.mqtt.reasons import Reason
from robustmq.policy.passwords import METHODS, written
from tests import authority
from tests.integration.homes import name_on
from tests.integration.secure import TlsWire, context, settings
from tests.integration.supervised import Node
from tests.integration.wire_client import serve

OK: Final = Reason.SUCCESS
WRONG: Final = Reason.BAD_USER_NAME_OR_PASSWORD
DENIED: Final = Reason.NOT_AUTHORIZED
KEPT: Final = [written(method, "pencil", b"salt", 100) for method in METHODS]
USERS: Final = f"""
[[users]]
username = "alice"
password = {KEPT}

[[users]]
username = "bob"
password = {KEPT}
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["alone", "with_password"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def node(mode: str, directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    lines = settings(
        directory,
        verify="optional",
        ca_file=str(directory / "ca.pem"),
        user_from="common_name",
    )
    mode_line = f'mqtt_runtime.auth.certificate_as_username="{mode}"'
    yield from serve(tmp_path_factory.mktemp(mode) / "data", *lines, mode_line, config=USERS)


class Case(NamedTuple):
    """A login: whose certificate, what CONNECT says, and what comes of it in both modes."""

    identity: str
    username: str | None
    password: bytes | None
    alone: Reason
    with_password: Reason
    user: str = "alice"


CASES: Final = [
    # The certificate is that of alice; whom it names counts, not what CONNECT says.
    Case("client", None, None, OK, WRONG),
    Case("client", None, b"pencil", OK, OK),
    Case("client", "alice", b"pencil", OK, OK),
    Case("client", "bob", None, OK, WRONG),
    Case("client", None, b"pencils", WRONG, WRONG),
    # Whom our authority has signed for is who it says, a user of the list or not.
    Case("other", None, None, OK, WRONG, "other.example"),
    Case("other", None, b"pencil", WRONG, WRONG),
    # Without a certificate a client logs in as ever.
    Case("", None, None, DENIED, DENIED),
    Case("", "bob", None, WRONG, WRONG),
    Case("", "bob", b"pencil", OK, OK, "bob"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("core", [0, 1])
def test_the_user_is_whom_the_certificate_names(
    node: Node, directory: Path, mode: str, core: int, case: Case
) -> None:
    name = name_on(core, "certified")
    with TlsWire(node, context(directory, case.identity)) as wire:
        wire.send(Connect(name, V5, username=case.username, password=case.password))
        connack = wire.expect(Connack)
        assert connack.reason == (case.alone if mode == "alone" else case.with_password)
        if connack.reason == OK:
            _, text = node.get(f"/api/mqtt/client/list?client_id={name}")
            (client,) = json.loads(text)["data"]["data"]
            assert (client["username"], client["listener"]) == (case.user, "tls")
