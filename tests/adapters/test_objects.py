from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.objects import ObjectStore
from headway.errors import HeadwayError
from tests.adapters.weed import open_store, running_weed


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("weed")
    with running_weed(folder) as address:
        yield address


@pytest.fixture(scope="module")
def store(endpoint: str) -> ObjectStore:
    return open_store(endpoint)


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_an_object_is_written_once_and_read_back(store: ObjectStore) -> None:
    body = os.urandom(300_000)
    assert store.head("once") is None
    assert store.put_new("once", body, sha(body)) is True
    assert store.put_new("once", b"other", sha(b"other")) is False
    assert store.get("once", 1 << 20) == body
    assert store.head("once") == len(body)
    assert store.get_range("once", 1000, 17) == body[1000:1017]
    assert store.get_range("once", 5, 0) == b""


def test_only_one_of_many_writers_wins(store: ObjectStore) -> None:
    bodies = [os.urandom(2000) for _ in range(8)]
    won: list[int] = []
    gate = threading.Barrier(len(bodies))

    def write(i: int) -> None:
        gate.wait()
        if store.put_new("race", bodies[i], sha(bodies[i])):
            won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(len(bodies))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(won) == 1
    assert store.get("race", 1 << 20) == bodies[won[0]]


def test_bytes_that_do_not_match_their_checksum_are_refused(store: ObjectStore) -> None:
    with pytest.raises(HeadwayError) as caught:
        store.put_new("wrong", b"body", sha(b"another"))
    assert caught.value.code == "upload.failed"
    assert store.head("wrong") is None


def test_what_is_missing_or_too_large_has_a_code(store: ObjectStore) -> None:
    store.put_new("ten", b"0123456789", sha(b"0123456789"))
    for work, code in (
        (lambda: store.get("none", 10), "artifact.collected"),
        (lambda: store.get_range("none", 0, 1), "artifact.collected"),
        (lambda: store.get("ten", 9), "roll.verify_failed"),
        (lambda: store.get_range("ten", 8, 5), "roll.verify_failed"),
        (lambda: store.get_range("ten", 50, 5), "roll.verify_failed"),
    ):
        with pytest.raises(HeadwayError) as caught:
            work()
        assert caught.value.code == code


def test_a_presigned_put_takes_exactly_these_bytes_once(store: ObjectStore) -> None:
    body = os.urandom(70_000)
    url, headers = store.presign_put("sites/s/packs/p", sha(body), len(body), 60)
    wrong = httpx.put(url, content=os.urandom(70_000), headers=headers)
    assert wrong.status_code == 400
    unconditional = httpx.put(url, content=body, headers={k: v for k, v in headers.items() if k != "if-none-match"})
    assert unconditional.status_code == 403
    other_sum = httpx.put(url, content=b"x" * len(body), headers={**headers, "x-amz-checksum-sha256": "A" * 43 + "="})
    assert other_sum.status_code == 403
    assert store.head("sites/s/packs/p") is None
    assert httpx.put(url, content=body, headers=headers).status_code == 200
    assert httpx.put(url, content=body, headers=headers).status_code == 412
    assert store.get("sites/s/packs/p", 1 << 20) == body


def test_a_presigned_put_can_be_streamed(store: ObjectStore) -> None:
    body = os.urandom(3_000_000)
    url, headers = store.presign_put("streamed", sha(body), len(body), 60)
    chunks = (body[i : i + 65536] for i in range(0, len(body), 65536))
    assert httpx.put(url, content=chunks, headers=headers).status_code == 200
    assert store.head("streamed") == len(body)


def test_a_presigned_get_reads_one_object_and_nothing_else(store: ObjectStore) -> None:
    store.put_new("one", b"hello", sha(b"hello"))
    store.put_new("two", b"hidden", sha(b"hidden"))
    url = store.presign_get("one", 60)
    assert httpx.get(url).content == b"hello"
    assert httpx.get(url, headers={"Range": "bytes=1-3"}).content == b"ell"
    assert httpx.get(url.replace("/one?", "/two?")).status_code == 403
    assert httpx.get(url.split("?", maxsplit=1)[0]).status_code == 403


def test_an_address_is_given_again_while_it_is_nearly_new(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("adapters.objects.time.time", lambda: now)
    made = {expires: store.presign_get("one", expires) for expires in (60, 600)}
    assert made[60] != made[600]
    monkeypatch.setattr("adapters.objects.time.time", lambda: now + 30)
    # Signed at least a second later, another one would say so.
    time.sleep(1.1)
    assert store.presign_get("one", 600) == made[600]
    assert store.presign_get("one", 60) != made[60]


def test_list_and_delete(store: ObjectStore) -> None:
    for i in range(5):
        store.put_new(f"many/{i}", b"x" * i, sha(b"x" * i))
    assert list(store.list("many/")) == [(f"many/{i}", i) for i in range(5)]
    store.delete(["many/1", "many/3", "many/not-there"])
    assert [key for key, _ in store.list("many/")] == ["many/0", "many/2", "many/4"]
    store.delete([])


def test_a_store_that_does_not_answer_has_a_code() -> None:
    away = ObjectStore("http://127.0.0.1:9", "us-east-1", "headway", "a", "b")
    for work, code in (
        (lambda: away.put_new("k", b"", sha(b"")), "upload.failed"),
        (lambda: away.head("k"), "service.unavailable"),
    ):
        with pytest.raises(HeadwayError) as caught:
            work()
        assert caught.value.code == code
        assert caught.value.retryable
