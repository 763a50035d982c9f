"""Key pairs for reading a repository by ssh: made here, so that the private half never was anywhere else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class DeployKey:
    """`public` is a line for the forge; `fingerprint` is what `ssh-keygen -l` shows."""

    public: str
    fingerprint: str
    private: str = field(repr=False)


def make_deploy_key(comment: str) -> DeployKey:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return DeployKey(f"{public} {comment}", f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}", private)
