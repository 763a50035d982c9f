"""The managed dialect at the gate: one version, no organisation to choose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from api.auth import Caller
from api.dialect import Headers
from api.limits import Name, bucket_of
from api.problems import as_headway_error, problem
from headway.errors import HeadwayError

PREFIX: Final = "/v1"
VERSION: Final = "2026-06-23"
# What commands are given: bytes, and more of them than fit into a request elsewhere.
INPUTS: Final = re.compile(PREFIX + r"/sites/[^/]+/environments/[^/]+/inputs(/[^/]+)?")
# What forges call, by a form too.
HOOKS: Final = re.compile(r"/hooks/[^/]+")


class Managed:
    headers: Sequence[tuple[bytes, bytes]] = ((b"forge-version", VERSION.encode()),)

    def __init__(self, docs_url: str) -> None:
        self._docs_url = docs_url

    def problem(self, error: Exception, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
        return problem(as_headway_error(error), request_id, self._docs_url, headers)

    def is_open(self, path: str) -> bool:
        """Outside of the prefix lie the documents and the health check."""
        return path != PREFIX and not path.startswith(PREFIX + "/")

    def reads_body(self, path: str) -> bool:
        return INPUTS.fullmatch(path) is not None or HOOKS.fullmatch(path) is not None

    def bucket(self, method: str, path: str) -> Name:
        return bucket_of(method, path)

    async def within(self, caller: Caller, headers: Headers) -> Caller:  # noqa: ARG002
        return caller

    def check(self, headers: Headers) -> None:
        asked = headers.get(b"forge-version")
        if asked is not None and asked.decode("latin-1") != VERSION:
            raise HeadwayError("version.invalid", f"The only version is {VERSION}.", param="Forge-Version")
