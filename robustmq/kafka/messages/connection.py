"""What a connection begins with: the versions, and who the client is."""

from typing import Annotated

from robustmq.kafka.schema import Int16, Int32, Int64, Message, since, tagged


class ApiVersionsRequest(Message):
    """Ask for the versions that are spoken here."""

    client_software_name: Annotated[str, since(3)] = ""
    client_software_version: Annotated[str, since(3)] = ""


class ApiVersion(Message):
    """The versions of an API."""

    api_key: Int16 = 0
    min_version: Int16 = 0
    max_version: Int16 = 0


class SupportedFeatureKey(Message):
    """A feature and its versions that are supported."""

    name: str = ""
    min_version: Int16 = 0
    max_version: Int16 = 0


class FinalizedFeatureKey(Message):
    """A feature and its versions that the cluster has agreed on."""

    name: str = ""
    max_version_level: Int16 = 0
    min_version_level: Int16 = 0


class ApiVersionsResponse(Message):
    """The versions that are spoken here; an error makes it look like version 0."""

    error_code: Int16 = 0
    api_keys: list[ApiVersion] = []
    throttle_time_ms: Annotated[Int32, since(1)] = 0
    supported_features: Annotated[list[SupportedFeatureKey], since(3), tagged(0)] = []
    finalized_features_epoch: Annotated[Int64, since(3), tagged(1)] = -1
    finalized_features: Annotated[list[FinalizedFeatureKey], since(3), tagged(2)] = []
    zk_migration_ready: Annotated[bool, since(3), tagged(3)] = False


class SaslHandshakeRequest(Message):
    """The mechanism that the client wants."""

    mechanism: str = ""


class SaslHandshakeResponse(Message):
    """Whether it may go on, and all mechanisms that there are."""

    error_code: Int16 = 0
    mechanisms: list[str] = []


class SaslAuthenticateRequest(Message):
    """A message of the mechanism."""

    auth_bytes: bytes = b""


class SaslAuthenticateResponse(Message):
    """The mechanism's answer; the session ends after its lifetime (ms, 0: never; KIP-368)."""

    error_code: Int16 = 0
    error_message: str | None = ""
    auth_bytes: bytes = b""
    session_lifetime_ms: Annotated[Int64, since(1)] = 0
