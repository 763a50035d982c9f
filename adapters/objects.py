"""The object store: S3 through boto3, path style, written once; only `replace` and what mends overwrite.

Every upload carries its SHA-256, which the store checks, and `If-None-Match: *`, so that two writers of one key end
with one object. Missing objects and lost connections are typed errors; nothing else of boto3 leaves this module.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from headway.errors import HeadwayError

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client

CHUNK: Final = 256 << 10
# How long an address for reading is good: a host may fetch a large artifact over a slow line.
READ_SECONDS: Final = 3600
# Of its time an address may have lost so much when it is given to the next one who asks; and so many are remembered.
_WORN: Final = 0.1
_ADDRESSES: Final = 10_000
_GONE: Final = {"404", "NoSuchKey", "NotFound"}
_TAKEN: Final = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_OURS: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "409"}


class ObjectStore:
    """One bucket. Thread-safe. Connection failures raise `upload.failed` on writes, `service.unavailable` on reads.

    boto3 is imported with the first use: for the control worker that is the first collection.
    """

    def __init__(
        self, endpoint: str, region: str, bucket: str, access_key: str, secret_key: str, *, connections: int = 16
    ) -> None:
        self.bucket = bucket
        self._endpoint, self._region = endpoint, region
        self._access_key, self._secret_key = access_key, secret_key
        self._connections = connections
        self._opening = threading.Lock()
        self._opened: S3Client | None = None
        self._addresses: dict[tuple[str, int], tuple[float, str]] = {}

    @property
    def _client(self) -> S3Client:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> S3Client:
        import boto3
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 3},
            connect_timeout=3,
            read_timeout=60,
            max_pool_connections=self._connections,
            # Ours is SHA-256, given explicitly; a second one by default would end up in presigned addresses.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={},
        )
        return boto3.client(
            "s3",
            endpoint_url=self._endpoint,
            region_name=self._region,
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key,
            config=config,
        )

    def ensure_bucket(self) -> None:
        """Make the bucket if it is not there."""
        try:
            with self._writing("the bucket"):
                self._client.create_bucket(Bucket=self.bucket)
        except HeadwayError as error:
            if error.details.get("reason") not in _OURS:
                raise

    def put_new(self, key: str, body: bytes | bytearray, sha256: str) -> bool:
        """Write an object that is not there yet; `sha256` is lower-case hex. False where it was there already."""
        try:
            with self._writing(key):
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,  # type: ignore[arg-type] # bytearray is left out of the stubs
                    ChecksumSHA256=_base64(sha256),
                    IfNoneMatch="*",
                )
        except HeadwayError as error:
            if error.details.get("reason") in _TAKEN:
                return False
            raise
        return True

    def replace(self, key: str, body: bytes, sha256: str) -> None:
        """Write an object in the place of another: readers see the one or the other."""
        with self._writing(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=body, ChecksumSHA256=_base64(sha256))

    def replace_that(self, key: str, body: bytes, sha256: str, etag: str) -> bool:
        """Write an object in the place of the one with that ETag. False where it is another by now, or gone."""
        try:
            with self._writing(key):
                self._client.put_object(
                    Bucket=self.bucket, Key=key, Body=body, ChecksumSHA256=_base64(sha256), IfMatch=etag
                )
        except HeadwayError as error:
            if error.details.get("reason") in (*_TAKEN, *_GONE):
                return False
            raise
        return True

    def get(self, key: str, max_bytes: int) -> bytes:
        """The whole object. Raises artifact.collected where there is none, roll.verify_failed past `max_bytes`."""
        with self._reading(key):
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            with answer["Body"] as body:
                raw: bytes = body.read(max_bytes + 1) if answer["ContentLength"] <= max_bytes else bytes(max_bytes + 1)
        if len(raw) > max_bytes:
            raise HeadwayError("roll.verify_failed", f"The object {_name(key)} is larger than {max_bytes} bytes.")
        return raw

    def get_range(self, key: str, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`. Raises artifact.collected, or roll.verify_failed where it is shorter."""
        if size == 0:
            return b""
        with self._reading(key):
            span = f"bytes={offset}-{offset + size - 1}"
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=span)
            with answer["Body"] as body:
                raw: bytes = body.read(size + 1)
        if len(raw) != size:
            raise HeadwayError("roll.verify_failed", f"The object {_name(key)} is shorter than its layout says.")
        return raw

    def read_range(self, key: str, offset: int, size: int) -> Iterator[bytes]:
        """The same in pieces of 256 KiB; the store has answered when this returns. Raises as `get_range` does."""
        if size == 0:
            return iter(())
        with self._reading(key):
            span = f"bytes={offset}-{offset + size - 1}"
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=span)
        if answer["ContentLength"] != size:
            answer["Body"].close()
            raise HeadwayError("roll.verify_failed", f"The object {_name(key)} is shorter than its layout says.")
        return self._pieces(key, answer["Body"])

    def _pieces(self, key: str, body: StreamingBody) -> Iterator[bytes]:
        with self._reading(key), body:
            yield from body.iter_chunks(CHUNK)

    def head(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""
        try:
            with self._reading(key):
                return self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        except HeadwayError as error:
            if error.code == "artifact.collected":
                return None
            raise

    def stat(self, key: str) -> tuple[int, str] | None:
        """The object's size in bytes and its ETag, or None where there is none."""
        try:
            with self._reading(key):
                found = self._client.head_object(Bucket=self.bucket, Key=key)
        except HeadwayError as error:
            if error.code == "artifact.collected":
                return None
            raise
        return found["ContentLength"], found["ETag"]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there do not matter."""
        pending = list(keys)
        for start in range(0, len(pending), 1000):
            batch = pending[start : start + 1000]
            with self._writing(batch[0]):
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if answer.get("Errors"):
                raise HeadwayError("upload.failed", f"The object store kept {len(answer['Errors'])} deleted objects.")

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object below the prefix, by key."""
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix))
        while True:
            with self._reading(prefix):
                page = next(pages, None)
            if page is None:
                return
            yield from ((one["Key"], one["Size"]) for one in page.get("Contents", []))

    def presign_get(self, key: str, expires: int = READ_SECONDS) -> str:
        """An address that reads this one object for `expires` seconds, or up to a tenth less.

        To sign one takes longer than to find the object's row, and an artifact has one for each of its packs.
        """
        # By the clock that the object store goes by, which goes on while a machine sleeps, and may be set back.
        now = time.time()
        made_at, address = self._addresses.get((key, expires), (now, ""))
        if not address or not 0 <= now - made_at <= _WORN * expires:
            address = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=expires
            )
            if len(self._addresses) >= _ADDRESSES:
                self._addresses.clear()
            self._addresses[key, expires] = (now, address)
        return address

    def presign_put(
        self, key: str, sha256: str, size: int, expires: int, *, instead_of: str | None = None
    ) -> tuple[str, dict[str, str]]:
        """An address that writes this object once: with exactly these bytes, and only if it is not there, or only in
        the place of the one with the ETag `instead_of`.

        The returned headers are part of the signature and have to be sent as they are.
        """
        only = {"IfNoneMatch": "*"} if instead_of is None else {"IfMatch": instead_of}
        params: dict[str, Any] = {"Bucket": self.bucket, "Key": key, "ContentLength": size, **only}
        params["ChecksumSHA256"] = _base64(sha256)
        url = self._client.generate_presigned_url("put_object", Params=params, ExpiresIn=expires)
        said = ("if-none-match", "*") if instead_of is None else ("if-match", instead_of)
        return url, {said[0]: said[1], "x-amz-checksum-sha256": _base64(sha256), "content-length": str(size)}

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            reason = _reason(error)
            raise HeadwayError(
                "upload.failed", f"The object store refused {_name(key)}: {reason}.", reason=reason
            ) from error
        except BotoCoreError as error:
            raise HeadwayError("upload.failed", f"The object store does not answer: {type(error).__name__}.") from error

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            reason = _reason(error)
            if reason in _GONE:
                raise HeadwayError("artifact.collected", f"There is no object {_name(key)}.") from error
            if reason in ("416", "InvalidRange"):
                message = f"The object {_name(key)} is shorter than its layout says."
                raise HeadwayError("roll.verify_failed", message) from error
            raise HeadwayError(
                "service.unavailable", f"The object store refused to read {_name(key)}: {reason}."
            ) from error
        except BotoCoreError as error:
            message = f"The object store does not answer: {type(error).__name__}."
            raise HeadwayError("service.unavailable", message) from error


def _reason(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1][:80]


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
