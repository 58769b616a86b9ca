"""The codec's headers, its pieces, and what it does where a version cannot say something."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.connection import ApiVersion, ApiVersionsRequest, ApiVersionsResponse
from robustmq.kafka.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData
from robustmq.kafka.messages.group_listing import ListedGroup, ListGroupsResponse
from robustmq.kafka.messages.groups import HeartbeatRequest
from robustmq.kafka.messages.leaders import LeaderIdAndEpoch
from robustmq.kafka.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseTopic,
)
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

BATCH = b"batch" * 1_000


def fetched(*batches: bytes) -> FetchResponse:
    data = PartitionData(partition_index=1, high_watermark=9, records=batches)
    return FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[data])])


def test_a_header_says_who_asks_what() -> None:
    (data,) = codec.encode_request(ApiKey.HEARTBEAT, 4, 77, "me", HeartbeatRequest(group_id="g"))
    header = codec.decode_request_header(data)
    assert header[:4] == (ApiKey.HEARTBEAT, 4, 77, "me")
    request = codec.decode_request(ApiKey.HEARTBEAT, 4, data, header.body_at)
    assert request == HeartbeatRequest(group_id="g")


def test_a_client_need_not_have_a_name() -> None:
    (data,) = codec.encode_request(ApiKey.METADATA, 1, 5, None, MetadataRequest())
    assert codec.decode_request_header(data).client_id is None


def test_the_header_of_an_unknown_request_is_read_too() -> None:
    assert codec.decode_request_header(b"\3\xe7\0\x09\0\0\0\5\0\1x") == (999, 9, 5, "x", 11)


def test_what_follows_a_request_is_ignored() -> None:
    (data,) = codec.encode_request(ApiKey.API_VERSIONS, 3, 1, "me", ApiVersionsRequest("kafka"))
    at = codec.decode_request_header(data).body_at
    request = codec.decode_request(ApiKey.API_VERSIONS, 3, data + b"more", at)
    assert request == ApiVersionsRequest("kafka")


@pytest.mark.parametrize("version", range(5))
def test_the_answer_to_api_versions_has_the_oldest_header(version: int) -> None:
    response = ApiVersionsResponse(api_keys=[ApiVersion(18, 0, 4)])
    (data,) = codec.encode_response(ApiKey.API_VERSIONS, version, 9, response)
    assert data[:6] == b"\0\0\0\x09\0\0"
    assert codec.decode_response(ApiKey.API_VERSIONS, version, data) == (9, response)


def test_large_batches_are_pieces_of_their_own_and_not_copied() -> None:
    pieces = codec.encode_response(ApiKey.FETCH, 12, 1, fetched(BATCH, BATCH[:10]))
    assert len(pieces) == 4
    assert pieces[1] is BATCH
    _, response = codec.decode_response(ApiKey.FETCH, 12, b"".join(pieces))
    assert response == FetchResponse(
        responses=[
            FetchableTopicResponse(
                topic="t",
                partitions=[
                    PartitionData(partition_index=1, high_watermark=9, records=BATCH + BATCH[:10])
                ],
            )
        ]
    )


@pytest.mark.parametrize("version", [4, 12])
def test_small_batches_do_not_make_pieces(version: int) -> None:
    pieces = codec.encode_response(ApiKey.FETCH, version, 1, fetched(b"small", b"too"))
    assert len(pieces) == 1
    assert b"smalltoo" in pieces[0]


@pytest.mark.parametrize("version", [3, 7, 9, 11])
def test_a_producers_batch_is_read_as_it_was_sent(version: int) -> None:
    request = ProduceRequest(
        acks=-1,
        timeout_ms=5,
        topic_data=[TopicProduceData("t", [PartitionProduceData(3, BATCH)])],
    )
    data = b"".join(codec.encode_request(ApiKey.PRODUCE, version, 1, "p", request))
    at = codec.decode_request_header(data).body_at
    assert codec.decode_request(ApiKey.PRODUCE, version, data, at) == request


def test_a_tagged_field_is_left_out_where_it_says_nothing() -> None:
    def size(leader: LeaderIdAndEpoch | None) -> int:
        answer = PartitionProduceResponse(current_leader=leader)
        response = ProduceResponse([TopicProduceResponse("t", [answer])])
        return len(b"".join(codec.encode_response(ApiKey.PRODUCE, 10, 1, response)))

    # The tag, its size, two numbers, and the end of the struct.
    assert size(LeaderIdAndEpoch(1, 2)) == size(None) + 2 + 9


def test_a_text_that_an_old_version_cannot_say_is_cut() -> None:
    group = ListedGroup(group_id="ö" * 20_000)
    for version, size in ((0, 16_383), (3, 20_000)):
        response = ListGroupsResponse(groups=[group])
        (data,) = codec.encode_response(ApiKey.LIST_GROUPS, version, 1, response)
        _, read = codec.decode_response(ApiKey.LIST_GROUPS, version, data)
        assert read == ListGroupsResponse(groups=[ListedGroup(group_id="ö" * size)])


def test_null_is_nothing_where_a_version_does_not_have_it() -> None:
    response = MetadataResponse(topics=[MetadataResponseTopic(name=None)])
    (data,) = codec.encode_response(ApiKey.METADATA, 11, 1, response)
    _, read = codec.decode_response(ApiKey.METADATA, 11, data)
    assert isinstance(read, MetadataResponse)
    assert not read.topics[0].name


def test_a_field_that_a_version_lacks_is_as_by_default() -> None:
    request = MetadataRequest(
        topics=[MetadataRequestTopic(name="t", topic_id=b"0123456789abcdef")],
        include_topic_authorized_operations=True,
    )
    (data,) = codec.encode_request(ApiKey.METADATA, 4, 1, None, request)
    at = codec.decode_request_header(data).body_at
    read = codec.decode_request(ApiKey.METADATA, 4, data, at)
    assert read == MetadataRequest(topics=[MetadataRequestTopic(name="t")])


def test_null_where_there_must_be_something_is_refused() -> None:
    (data,) = codec.encode_request(ApiKey.HEARTBEAT, 0, 1, None, HeartbeatRequest("g"))
    with pytest.raises(
        ProtocolError, match="no Heartbeat of version 0: The field group_id is null"
    ):
        codec.decode_request(ApiKey.HEARTBEAT, 0, data[:10] + b"\xff\xff" + data[13:], 10)
