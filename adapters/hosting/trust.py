"""A host's trust root: the public keys it pinned when it joined. Nothing that arrives later is trusted by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapters.signer.bundle import Policy, check
from adapters.signer.keys import Keyring
from headway.errors import HeadwayError


class Trust:
    """`pinned` is the host's folder of `*.pub`; while it is empty, the keys of `origin` are pinned once."""

    def __init__(self, pinned: Path, origin: Path) -> None:
        self._pinned = pinned
        self._origin = origin

    def keyring(self) -> Keyring:
        """Raises roll.place_failed (retryable) while there is no key to trust yet."""
        if not any(self._pinned.glob("*.pub")):
            self._pin()
        return Keyring.from_folder(self._pinned)

    def _pin(self) -> None:
        keys = sorted(self._origin.glob("*.pub")) if self._origin.is_dir() else []
        if not keys:
            raise HeadwayError(
                "roll.place_failed", "This host has no trust root yet: put the signing key's .pub there."
            )
        self._pinned.mkdir(parents=True, exist_ok=True)
        for key in keys:
            aside = self._pinned / f".{key.name}.new"
            shutil.copyfile(key, aside)
            aside.replace(self._pinned / key.name)

    def verify(self, bundle: bytes, digest: str, site_id: str) -> None:
        """Raises artifact.signature_invalid where the bundle is not what this platform signed for that site."""
        check(bundle, digest, self.keyring(), Policy(site_id))
