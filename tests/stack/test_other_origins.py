"""What a page of a served site could send to the stack's other ports, from a browser on the same machine."""

from __future__ import annotations

import httpx
import pytest

from bench.stack import Stack
from headway.supervisor.ports import Block

PAGE = {"Origin": "http://stranger.localhost:7071", "Content-Type": "text/plain"}


@pytest.fixture(scope="module")
def block(stack: Stack) -> Block:
    return Block(httpx.URL(stack.api).port or 0)


@pytest.mark.parametrize("path", ["/", "/buckets/headway/", "/buckets/?limit=9"])
def test_the_object_stores_file_server_is_shut(block: Block, path: str) -> None:
    url = block.origin("weed-filer") + path
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = httpx.request(method, url, headers=PAGE)
        assert answer.status_code == 404, method
        assert "access-control-allow-origin" not in answer.headers


def test_the_object_store_wants_a_signature(block: Block) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert httpx.request(method, f"{block.origin('s3')}/headway/sites/x", headers=PAGE).status_code == 403
    assert httpx.post(f"{block.origin('weed-master')}/col/delete?collection=headway", headers=PAGE).status_code == 404


@pytest.mark.parametrize("port", ["temporal-http", "temporal-ui"])
def test_no_run_is_ended_by_a_form(block: Block, port: str) -> None:
    path = "/api/v1/namespaces/default/workflows/job_01J8AA1B2C3D4E5F6G7H8J9K0L/terminate"
    answer = httpx.post(block.origin(port) + path, headers=PAGE, content=b'{"reason": "x"}')
    assert answer.status_code in (400, 403), "404 would mean that it was looked for"


def test_the_api_answers_no_other_origin(block: Block) -> None:
    asked = {**PAGE, "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    answer = httpx.options(f"{block.origin('api')}/v1/sites", headers=asked)
    assert answer.status_code >= 400
    assert "access-control-allow-origin" not in answer.headers
