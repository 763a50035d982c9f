"""What is no request of HTTP never reaches the app; it too is answered with the error that the dialect has."""

from __future__ import annotations

import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import JSON_TYPE, json_bytes
from headway.errors import HeadwayError, error_object
from headway.ids import new_id

# RFC 9112 section 3.2, with what RFC 3986 lets stand in a host and its port; empty where the address has none.
HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


def protocol(docs_url: str) -> type[HttpToolsProtocol]:
    """The server's own, with errors in the envelope of the managed dialect: which path was meant is not known yet."""

    class Protocol(HttpToolsProtocol):
        why = ""

        def on_headers_complete(self) -> None:
            hosts = [value for name, value in self.headers if name == b"host"]
            wanted = (1,) if self.parser.get_http_version() == "1.1" else (0, 1)
            if len(hosts) not in wanted or not all(map(HOST.fullmatch, hosts)):
                self.why = "A request of HTTP/1.1 has one Host header, with a host and no more."
                raise ValueError(self.why)  # which the parser makes a bad request
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            request_id = new_id("req")
            error = error_object(HeadwayError("request.malformed", self.why or msg), docs_url)
            body = json_bytes({"error": error, "request_id": request_id})
            head = (
                "HTTP/1.1 400 Bad Request",
                f"content-type: {JSON_TYPE}",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "connection: close",
            )
            self.transport.write("\r\n".join((*head, "", "")).encode() + body)
            self.transport.close()

    return Protocol
