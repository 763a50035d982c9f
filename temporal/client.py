"""The client: one place that knows how to reach Temporal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from headway.errors import HeadwayError


async def connect(
    address: str,
    namespace: str = "default",
    *,
    config_file: Path | None = None,
    profile: str = "default",
    lazy: bool = False,
) -> Client:
    """`lazy` returns at once and connects with the first call: the API starts while Temporal is away.

    The standard variables (TEMPORAL_API_KEY, TEMPORAL_TLS…) count, and a profile of `config_file` where one is named;
    the file of whoever started this process does not. Raises stack.setting_invalid.
    """
    return await Client.connect(lazy=lazy, **connection(address, namespace, config_file, profile))


def connection(address: str, namespace: str, config_file: Path | None, profile: str) -> dict[str, Any]:
    """What `Client.connect` gets. Variables win over the profile, the profile over `address` and `namespace`."""
    if config_file is not None and not config_file.is_file():
        raise HeadwayError("stack.setting_invalid", f"TEMPORAL_CONFIG_FILE names {config_file}, which is not a file.")
    try:
        known = ClientConfig.load_client_connect_config(
            profile=profile, config_file=None if config_file is None else str(config_file), disable_file=not config_file
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise HeadwayError(
            "stack.setting_invalid", f"The Temporal profile {profile!r} cannot be used: {error}."
        ) from error
    return {"target_host": address, "namespace": namespace, **{name: value for name, value in known.items() if value}}
