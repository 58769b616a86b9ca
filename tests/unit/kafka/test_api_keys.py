"""The table of requests, held against what clients look for."""

import pytest

from robustmq.kafka.api_keys import APIS, ApiKey


def test_every_request_has_its_row() -> None:
    assert set(APIS) == set(ApiKey)
    for api in APIS.values():
        assert api.key == ApiKey[_upper(api.name)]
        assert 0 <= api.oldest <= api.newest
        assert (api.request.__name__, api.response.__name__) == (
            f"{api.name}Request",
            f"{api.name}Response",
        )


def _upper(name: str) -> str:
    return "".join("_" + c if c.isupper() else c.upper() for c in name).removeprefix("_")


def test_produce_is_listed_from_zero_and_spoken_from_three() -> None:
    produce = APIS[ApiKey.PRODUCE]
    assert produce.advertised == (0, 11)
    assert [version for version in range(13) if produce.speaks(version)] == list(range(3, 12))


@pytest.mark.parametrize(
    ("key", "version"),
    [
        # librdkafka up to 2.11.0 turns a feature off when this one version is missing.
        (ApiKey.PRODUCE, 2), (ApiKey.PRODUCE, 3), (ApiKey.PRODUCE, 7), (ApiKey.FETCH, 4),
        (ApiKey.FETCH, 10), (ApiKey.FIND_COORDINATOR, 0), (ApiKey.JOIN_GROUP, 0),
        (ApiKey.SYNC_GROUP, 0), (ApiKey.HEARTBEAT, 0), (ApiKey.LEAVE_GROUP, 0),
        (ApiKey.OFFSET_COMMIT, 2), (ApiKey.OFFSET_FETCH, 1), (ApiKey.SASL_HANDSHAKE, 0),
        (ApiKey.SASL_HANDSHAKE, 1), (ApiKey.SASL_AUTHENTICATE, 0), (ApiKey.LIST_OFFSETS, 1),
        (ApiKey.INIT_PRODUCER_ID, 0), (ApiKey.API_VERSIONS, 0),
        # @platformatic/kafka has only these.
        (ApiKey.FETCH, 13), (ApiKey.CREATE_TOPICS, 7), (ApiKey.DELETE_TOPICS, 6),
        (ApiKey.DESCRIBE_GROUPS, 5), (ApiKey.SASL_AUTHENTICATE, 2), (ApiKey.DELETE_RECORDS, 2),
        # librdkafka, for the consumer protocol; kafka-python, for the cluster's brokers.
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, 1), (ApiKey.DESCRIBE_CLUSTER, 1),
    ],
)  # fmt: skip
def test_what_a_client_hangs_on_is_advertised(key: ApiKey, version: int) -> None:
    oldest, newest = APIS[key].advertised
    assert oldest <= version <= newest
