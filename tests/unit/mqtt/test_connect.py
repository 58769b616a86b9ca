"""What a CONNECT asks for: whose client it is."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.mqtt.connect import tenancy
from robustmq.mqtt.packets import Connect, Properties
from robustmq.mqtt.reasons import Reason

TENANTS = frozenset({"acme", "beta"})


def packet(client_id: str, username: str | None, asked: str | None = None) -> Connect:
    listed = (("other", "x"), ("tenant", asked)) if asked is not None else ()
    return Connect(client_id, username=username, properties=Properties(user_properties=listed))


@pytest.mark.parametrize(
    ("client", "listener", "tenant", "username"),
    [
        (packet("c", "u"), "", "default", "u"), (packet("c", None), "", "default", None),
        (packet("c", "u"), "beta", "beta", "u"), (packet("acme@c", "u"), "beta", "acme", "u"),
        (packet("acme@c", "beta@u"), "", "beta", "u"),
        (packet("acme@c", "acme@u", "beta"), "", "beta", "acme@u"),
        (packet("acme@c", "u", "default"), "", "default", "u"),
        (packet("c@x", "me@mail"), "", "default", "me@mail"),
        (packet("acme", "acme@"), "", "default", "acme@"), (packet("", "@u"), "", "default", "@u"),
    ],
)  # fmt: skip
def test_whose_client_it_is(
    client: Connect, listener: str, tenant: str, username: str | None
) -> None:
    assert tenancy(client, listener, TENANTS) == (tenant, username)


def test_a_tenant_that_is_none() -> None:
    with pytest.raises(ProtocolError, match="there is no tenant gamma") as error:
        tenancy(packet("c", None, "gamma"), "", TENANTS)
    assert error.value.reason == Reason.NOT_AUTHORIZED


def test_without_tenants_the_property_means_nothing() -> None:
    assert tenancy(packet("acme@c", "acme@u", "gamma"), "", frozenset()).tenant == "default"
