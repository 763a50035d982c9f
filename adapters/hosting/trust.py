"""A host's trust root: what it pinned when it joined. Nothing that arrives later is trusted by itself.

`trust/*.pub` are the signing keys, `trust/trusted_root.json` is the ledger; `trust/keyring.json` is the newest keyring
that both vouched for, and from then on takes the place of the former. A host that has pinned a ledger demands its
entry of every bundle, whenever that was signed and by whichever key; there is no way back but an operator's hand.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapters.ledger.keyring import KEYRING_NAME, KeyringDocument, open_keyring, read_keyring
from adapters.ledger.proofs import ProofError
from adapters.ledger.root import ROOT_NAME, TrustedLog, parse_root
from adapters.signer.bundle import Policy, Verified, check, check_record
from adapters.signer.keys import Keyring, ring_of, write_aside
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from adapters.signer.keyless import Trusted

Mode = Literal["key", "keyless"]


class Trust:
    """`pinned` is the host's folder; what is missing there is pinned once, from `keys` and `ledger`.

    `mode` is this host's own setting: what artifacts are signed with. Nothing that arrives can change it.
    """

    def __init__(self, pinned: Path, keys: Path, ledger: Path, mode: Mode = "key") -> None:
        self._pinned = pinned
        self._keys = keys
        self._ledger = ledger
        self._mode = mode
        # Rollouts ask side by side: none sees half of what is pinned, and none puts an older keyring over a newer one.
        self._changing = threading.RLock()

    def keyring(self) -> Keyring:
        """Raises roll.place_failed (retryable) while there is no key to trust yet."""
        if (learned := self._learned()) is not None:
            return ring_of(learned.keys)
        with self._changing:
            if not any(self._pinned.glob("*.pub")):
                found = sorted(self._keys.glob("*.pub")) if self._keys.is_dir() else []
                if not found:
                    raise _missing("the signing key's .pub")
                for key in found:
                    self._pin(key)
            return Keyring.from_folder(self._pinned)

    def learn(self, keyring: str) -> None:
        """Keep a newer keyring. Raises artifact.signature_invalid where nobody who is trusted here vouches for it."""
        place = self._pinned / KEYRING_NAME
        raw = keyring.encode()
        if not raw or (place.exists() and place.read_bytes() == raw):
            return
        with self._changing:
            standing = self._learned()
            try:
                if standing is not None and read_keyring(raw).version <= standing.version:
                    return
                open_keyring(raw, self.log().log, self.keyring().publics)
            except ProofError as error:
                message = f"The platform's keyring was refused: {error}."
                raise HeadwayError("artifact.signature_invalid", message) from None
            write_aside(place, raw, 0o644)

    def _learned(self) -> KeyringDocument | None:
        try:
            return read_keyring((self._pinned / KEYRING_NAME).read_bytes())
        except FileNotFoundError:
            return None
        except ProofError:
            message = f"This host's {KEYRING_NAME} is damaged: restore it, or remove it to trust the pinned .pub again."
            raise HeadwayError("roll.place_failed", message) from None

    def log(self) -> TrustedLog:
        """Raises roll.place_failed (retryable) while there is no ledger to trust yet."""
        return parse_root(self._of_ledger(ROOT_NAME, "the ledger's"))

    def _of_ledger(self, name: str, whose: str) -> bytes:
        """A document that is pinned as it is found first."""
        pinned = self._pinned / name
        with self._changing:
            if not pinned.exists():
                if not (self._ledger / name).exists():
                    raise _missing(f"{whose} {name}")
                self._pin(self._ledger / name)
        return pinned.read_bytes()

    def _pin(self, path: Path) -> None:
        self._pinned.mkdir(parents=True, exist_ok=True)
        write_aside(self._pinned / path.name, path.read_bytes(), 0o644)

    def verify(self, bundle: bytes, digest: str, site_id: str) -> Verified:
        """Raises artifact.signature_invalid where the bundle is not what this platform signed for that site."""
        if self._mode == "keyless":
            return self.sigstore().check(bundle, digest, Policy(site_id))
        return check(bundle, digest, self.keyring(), Policy(site_id), ledger=self.log())

    def check_record(self, record: bytes) -> Verified:
        """Raises artifact.signature_invalid where it is no record of this platform's, signed and in its ledger."""
        return check_record(record, self.keyring(), ledger=self.log())

    def sigstore(self) -> Trusted:
        """Raises roll.place_failed (retryable) while there is nobody to trust yet."""
        from adapters.signer.keyless import SIGSTORE_NAME, open_trusted

        return open_trusted(self._of_ledger(SIGSTORE_NAME, "the signing worker's"))


def _missing(what: str) -> HeadwayError:
    return HeadwayError("roll.place_failed", f"This host has no trust root yet: put {what} there.")
