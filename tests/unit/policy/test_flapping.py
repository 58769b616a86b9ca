"""Clients that come again and again, within a window and a bounded memory."""

from robustmq.policy.bans import ban_of, record_of
from robustmq.policy.flapping import Flapping
from robustmq.policy.principal import Principal
from robustmq.settings.limits import MqttFlappingDetect

NOW_MS = 1_700_000_000_500


def test_the_connection_that_reaches_the_limit_earns_a_ban() -> None:
    settings = MqttFlappingDetect(enable=True, max_client_connections=3, ban_time=2)
    flapping = Flapping(settings)
    assert flapping.connected(Principal("a"), NOW_MS) is None
    assert flapping.connected(Principal("b"), NOW_MS) is None
    assert flapping.connected(Principal("a"), NOW_MS + 59_000) is None
    ban = flapping.connected(Principal("a"), NOW_MS + 59_999)
    assert ban is not None
    assert (ban.name, ban.blacklist_type, ban.resource_name) == ("flapping:a", "ClientId", "a")
    assert ban.end_time == (NOW_MS + 59_999) // 1_000 + 1 + 120
    assert flapping.connected(Principal("a"), NOW_MS + 60_000) is None


def test_a_window_that_is_over_counts_no_more() -> None:
    flapping = Flapping(MqttFlappingDetect(enable=True, max_client_connections=2))
    for minute in range(5):
        assert flapping.connected(Principal("a"), NOW_MS + minute * 60_000) is None
    assert len(flapping) == 1


def test_memory_is_bounded_and_the_oldest_gives_way() -> None:
    settings = MqttFlappingDetect(enable=True, max_client_connections=2, max_clients=3)
    flapping = Flapping(settings)
    for number in range(100):
        assert flapping.connected(Principal(f"client-{number}"), NOW_MS) is None
    assert len(flapping) == 3
    assert flapping.connected(Principal("client-99"), NOW_MS) is not None
    assert flapping.connected(Principal("client-0"), NOW_MS) is None


def test_nothing_is_counted_unless_it_is_enabled() -> None:
    flapping = Flapping(MqttFlappingDetect(max_client_connections=2))
    assert [flapping.connected(Principal("a"), NOW_MS) for _ in range(9)] == [None] * 9
    assert len(flapping) == 0


def test_the_same_name_in_two_tenants_is_two_clients() -> None:
    flapping = Flapping(MqttFlappingDetect(enable=True, max_client_connections=2))
    assert flapping.connected(Principal("a"), NOW_MS) is None
    assert flapping.connected(Principal("a", tenant="acme"), NOW_MS) is None
    ban = flapping.connected(Principal("a", tenant="acme"), NOW_MS)
    assert ban is not None
    assert (ban.name, ban.resource_name, ban.tenant) == ("flapping@acme:a", "a", "acme")


def test_the_ban_of_a_very_long_client_identifier_has_a_name_that_records_may_have() -> None:
    flapping = Flapping(MqttFlappingDetect(enable=True, max_client_connections=2))
    names = set()
    for last in "ab":
        who = Principal("c" * 65_000 + last)
        assert flapping.connected(who, NOW_MS) is None
        ban = flapping.connected(who, NOW_MS)
        assert ban is not None
        assert ban_of(ban.name, record_of(ban)).resource_name == who.client_id
        names.add(ban.name)
    assert len(names) == 2
