"""cosign's own private key file: PKCS8 in a NaCl secretbox, under a key that scrypt makes of the password."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

from cryptography.hazmat.primitives import serialization

HEADERS: Final = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")
# cosign writes N = 65536 (2.x) or 32768; whoever can write the file shall not choose how much memory it takes.
_MOST_WORK: Final = 1 << 17


def is_cosign_key(pem: bytes) -> bool:
    first = pem.lstrip().split(b"\n", 1)[0]
    return any(header in first for header in HEADERS)


def open_cosign_key(pem: bytes, password: bytes) -> object:
    """The private key. Raises ValueError where the file is damaged or the password is wrong."""
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    lines = pem.strip().splitlines()
    try:
        sealed = json.loads(base64.b64decode(b"".join(lines[1:-1]), validate=True))
        kdf, cipher = sealed["kdf"], sealed["cipher"]
        work = kdf["params"]
        if kdf["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
            raise ValueError("an unknown kind of key file")
        if work["N"] > _MOST_WORK or work["r"] > 8 or work["p"] > 2:
            raise ValueError("the key file asks for too much work")
        salt, nonce = base64.b64decode(kdf["salt"]), base64.b64decode(cipher["nonce"])
        made = hashlib.scrypt(password, salt=salt, n=work["N"], r=work["r"], p=work["p"], maxmem=256 << 20, dklen=32)
        der = SecretBox(made).decrypt(base64.b64decode(sealed["ciphertext"]), nonce)
    except (KeyError, TypeError, CryptoError) as error:
        raise ValueError("the key file is damaged, or the password is wrong") from error
    return serialization.load_der_private_key(der, None)
