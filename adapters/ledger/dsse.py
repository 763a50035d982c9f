"""DSSE v1 (https://github.com/secure-systems-lab/dsse): the bytes that an envelope's signature is of.

The library that signs has this too, and brings the clients of three clouds along: every process would load them.
"""

from __future__ import annotations


def pae(kind: str, payload: bytes) -> bytes:
    """The pre-authentication encoding of a payload of that type."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)
