"""Signatures of what is sent, in the formats of both dialects. Each is HMAC-SHA256, in hexadecimal digits."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from headway.webhooks import MANAGED


def mac(secret: str, message: bytes) -> str:
    """The key is the whole secret, its prefix included."""
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def timed(secrets: Sequence[str], body: bytes, at: int) -> str:
    """`t=<unix seconds>,v1=<hex>` over `{t}.{body}`; one `v1` for each secret that is good now."""
    message = f"{at}.".encode() + body
    return ",".join([f"t={at}", *(f"v1={mac(secret, message)}" for secret in secrets)])


def headers_of(
    dialect: str, secrets: Sequence[str], body: bytes, at: int, *, event: str, event_id: str, delivery_id: str
) -> dict[str, str]:
    """What says who sends, what it is, and that it is genuine. `secrets` are those that sign, the newest first."""
    if dialect == MANAGED:
        return {
            "Forge-Signature": timed(secrets, body, at),
            "Forge-Event": event,
            "Forge-Event-Id": event_id,
            "Forge-Delivery": delivery_id,
        }
    # Its clients take the last `v1` of several, so there is one; and two headers, because it documents two.
    return {
        "Miosa-Signature": timed(secrets[:1], body, at),
        "X-MIOSA-Signature": f"sha256={mac(secrets[0], body)}",
        "X-MIOSA-Event": event,
        "X-MIOSA-Event-Id": event_id,
        "X-MIOSA-Delivery": delivery_id,
    }
