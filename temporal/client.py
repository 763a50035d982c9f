"""The client: one place that knows how to reach Temporal."""

from __future__ import annotations

from temporalio.client import Client


async def connect(address: str, namespace: str = "default", *, lazy: bool = False) -> Client:
    """`lazy` returns at once and connects with the first call: the API starts while Temporal is away."""
    return await Client.connect(address, namespace=namespace, lazy=lazy)
