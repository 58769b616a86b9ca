"""The SCRAM credentials of users."""

from robustmq.kafka.schema import Int8, Int16, Int32, Message


class UserName(Message):
    """A user that is asked for."""

    name: str = ""


class DescribeUserScramCredentialsRequest(Message):
    """Ask for the SCRAM credentials of these users; None: of all."""

    users: list[UserName] | None = []


class CredentialInfo(Message):
    """A credential: its mechanism (1: SHA-256, 2: SHA-512) and iterations."""

    mechanism: Int8 = 0
    iterations: Int32 = 0


class DescribeUserScramCredentialsResult(Message):
    """The credentials of a user."""

    user: str = ""
    error_code: Int16 = 0
    error_message: str | None = ""
    credential_infos: list[CredentialInfo] = []


class DescribeUserScramCredentialsResponse(Message):
    """The credentials."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    results: list[DescribeUserScramCredentialsResult] = []


class ScramCredentialDeletion(Message):
    """A credential to remove."""

    name: str = ""
    mechanism: Int8 = 0


class ScramCredentialUpsertion(Message):
    """A credential to set."""

    name: str = ""
    mechanism: Int8 = 0
    iterations: Int32 = 0
    salt: bytes = b""
    salted_password: bytes = b""


class AlterUserScramCredentialsRequest(Message):
    """Credentials to set and to remove."""

    deletions: list[ScramCredentialDeletion] = []
    upsertions: list[ScramCredentialUpsertion] = []


class AlterUserScramCredentialsResult(Message):
    """What became of the credentials of a user."""

    user: str = ""
    error_code: Int16 = 0
    error_message: str | None = ""


class AlterUserScramCredentialsResponse(Message):
    """What became of the credentials."""

    throttle_time_ms: Int32 = 0
    results: list[AlterUserScramCredentialsResult] = []
