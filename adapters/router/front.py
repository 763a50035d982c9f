"""Caddy in front of several API processes, beside the sites: the grown-up installation's web server."""

from __future__ import annotations

from typing import Any, Final

from adapters.router.caddy import Json

# How long a request waits for a replica that takes its connection; one that was sent is never sent twice.
TRY_SECONDS: Final = 10


def with_api(config: Json, *, listen: str, upstream: str) -> Json:
    """`config` (of `caddy.render`) with a server that balances over the addresses that the name `upstream` has.

    `upstream` is `name:port`. A replica that refuses a connection is passed over for some seconds. Streams are sent on
    as they come.
    """
    name, _, port = upstream.rpartition(":")
    proxy: dict[str, Any] = {
        "handler": "reverse_proxy",
        "dynamic_upstreams": {"source": "a", "name": name, "port": port, "refresh": "2s"},
        "load_balancing": {
            "selection_policy": {"policy": "random"},
            "try_duration": f"{TRY_SECONDS}s",
            "try_interval": "100ms",
        },
        "health_checks": {"passive": {"fail_duration": "2s", "max_fails": 1}},
        "flush_interval": -1,
        "transport": {"protocol": "http", "dial_timeout": "1s"},
    }
    server = {
        "listen": [listen],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "read_header_timeout": "30s",
        "idle_timeout": "2m",
        "routes": [{"handle": [proxy]}],
    }
    http = config["apps"]["http"]
    return {
        **config,
        "apps": {**config["apps"], "http": {**http, "servers": {**http["servers"], "api": server}}},
    }
