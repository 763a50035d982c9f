"""The one way out of a sandbox: named hosts and ports, resolved once, public unless the operator says otherwise."""

from adapters.egress.indexes import PackageIndexes, package_indexes
from adapters.egress.listener import PROXY_URL, listen_within
from adapters.egress.policy import EgressPolicy, Rule
from adapters.egress.proxy import EgressProxy

__all__ = [
    "PROXY_URL",
    "EgressPolicy",
    "EgressProxy",
    "PackageIndexes",
    "Rule",
    "listen_within",
    "package_indexes",
]
