"""What is no request of HTTP never reaches the app; it too is answered with the error that the dialect has."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import JSON_TYPE, json_bytes
from headway.errors import HeadwayError, error_object
from headway.ids import new_id


def protocol(docs_url: str) -> type[HttpToolsProtocol]:
    """The server's own, with errors in the envelope of the managed dialect: which path was meant is not known yet."""

    class Protocol(HttpToolsProtocol):
        def send_400_response(self, msg: str) -> None:
            request_id = new_id("req")
            error = error_object(HeadwayError("request.malformed", msg), docs_url)
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
