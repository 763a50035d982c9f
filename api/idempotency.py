"""Idempotency-Key (contract section 4): the same request under the same key has one outcome for 24 hours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from sqlmodel import Session

from headway.errors import HeadwayError
from store.idempotency import IN_PROGRESS, claim_key, is_known, keep_outcome
from store.models import Idempotency

MAX_BYTES: Final = 255


class Replay(Exception):
    """The outcome is known already: answer with it, do nothing. Its values outlive the transaction."""

    def __init__(self, known: Idempotency) -> None:
        super().__init__(known.key)
        self.job_id, self.body = known.job_id, known.body or {}


@dataclass(frozen=True)
class Once:
    """One request's claim on its key. Without a key it does nothing."""

    principal: str
    key: str | None
    fingerprint: str

    @classmethod
    def of(cls, principal: str, key: str | None, method: str, path: str, body: dict[str, Any]) -> Once:
        """`key` is a header, so a character is a byte. Raises request.invalid_parameter: empty, or over 255 bytes."""
        if key is not None and (not key.strip() or len(key) > MAX_BYTES):
            raise HeadwayError(
                "request.invalid_parameter", "An Idempotency-Key has 1 to 255 bytes.", param="Idempotency-Key"
            )
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return cls(principal, key, hashlib.sha256(f"{method}\n{path}\n{canonical}".encode()).hexdigest())

    def claim(self, session: Session) -> None:
        """After the caller is known to be allowed, before anything is judged that the first request has changed.

        Raises Replay, idempotency.key_reused or idempotency.in_progress.
        """
        if self.key is None:
            return
        known = claim_key(session, self.principal, self.key, self.fingerprint)
        if known is None:
            return
        if known.fingerprint != self.fingerprint:
            raise HeadwayError(
                "idempotency.key_reused", "This key was used for a different request.", param="Idempotency-Key"
            )
        if known.status_code == IN_PROGRESS:
            raise HeadwayError("idempotency.in_progress", "The first request with this key is still running.")
        raise Replay(known)

    def is_known(self, session: Session) -> bool:
        """Whether a claim will find an earlier request's: for what costs something before its body is read."""
        return self.key is not None and is_known(session, self.principal, self.key)

    def keep(
        self, session: Session, status: int, *, body: dict[str, Any] | None = None, job_id: str | None = None
    ) -> None:
        """The outcome, in the same transaction; never a one-time secret."""
        if self.key is not None:
            keep_outcome(session, self.principal, self.key, status=status, body=body, job_id=job_id)
