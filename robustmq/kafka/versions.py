"""Which requests are offered, in which versions: ApiVersions (KIP-35, KIP-511)."""

import re
from collections.abc import Collection
from typing import Final

from robustmq.kafka.api_keys import APIS, Api, ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
)

OWN: Final = frozenset({ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE})
"""What a connection answers without a handler."""

_NAMED_SINCE: Final = 3
_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")


class Versions:
    """The APIs that a core offers: those that have a handler, and a connection's own."""

    def __init__(self, handled: Collection[int]) -> None:
        self._apis: dict[int, Api] = {
            api.key: api for api in APIS.values() if api.key in handled or api.key in OWN
        }
        self._keys = [_row(api) for api in self._apis.values()]

    def takes(self, api: int, version: int) -> bool:
        """Say whether a request is taken in this version."""
        known = self._apis.get(api)
        return known is not None and known.oldest <= version <= known.newest

    @staticmethod
    def name(api: int) -> str:
        """The name of an API for the log."""
        known = APIS.get(api)
        return known.name if known is not None else f"the API {api}"

    def answer(self, version: int, request: ApiVersionsRequest) -> ApiVersionsResponse:
        """Name what is offered; refuses a client whose software has no name (KIP-511)."""
        said = (request.client_software_name, request.client_software_version)
        if version >= _NAMED_SINCE and not all(map(_SOFTWARE.fullmatch, said)):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        return ApiVersionsResponse(api_keys=self._keys)

    def unsupported(self) -> ApiVersionsResponse:
        """The answer to a version of ApiVersions that is not: which ones are, in version 0."""
        return ApiVersionsResponse(
            error_code=ErrorCode.UNSUPPORTED_VERSION,
            api_keys=[_row(self._apis[ApiKey.API_VERSIONS])],
        )


def _row(api: Api) -> ApiVersion:
    first, last = api.advertised
    return ApiVersion(api_key=api.key, min_version=first, max_version=last)
