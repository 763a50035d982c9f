"""Values at rest: each under a key of its own, and that one under a key that lies outside of the database.

The file holds one key a line, `<id> <base64 of 32 bytes>`; the first is the one that is used, the others only read.
It is looked at before each use, so that a rotation (`headway secrets rekey`) needs no restart.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headway.errors import HeadwayError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


@dataclass(frozen=True)
class Hidden:
    """A value that only the holder of the key `key_id` can read: each part is a nonce and what AES-256-GCM made."""

    ciphertext: bytes
    wrapped_key: bytes
    key_id: str


class Vault:
    """Hides and opens values with the keys of a file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[tuple[int, int, int], dict[str, AESGCM]] | None = None

    def hide(self, value: str, bound_to: str) -> Hidden:
        """`bound_to` names the row: what is opened for another one is refused."""
        key_id, key = next(iter(self._keys().items()))
        own = AESGCM.generate_key(256)
        ciphertext = _encrypt(AESGCM(own), value.encode(), bound_to)
        return Hidden(ciphertext, _encrypt(key, own, _wrap_name(key_id, bound_to)), key_id)

    def open(self, ciphertext: bytes, wrapped_key: bytes, key_id: str, bound_to: str) -> str:
        """Raises config.unreadable: the key is gone, or the row is not what was written."""
        return _decrypt(AESGCM(self._unwrap(wrapped_key, key_id, bound_to)), ciphertext, bound_to).decode()

    def rewrap(self, wrapped_key: bytes, key_id: str, bound_to: str) -> tuple[bytes, str]:
        """A value's own key under the first key of the file, and that one's id. The value is not opened."""
        own = self._unwrap(wrapped_key, key_id, bound_to)
        first, key = next(iter(self._keys().items()))
        return _encrypt(key, own, _wrap_name(first, bound_to)), first

    def key_ids(self) -> list[str]:
        """Newest first: the first one is in use."""
        return list(self._keys())

    def _unwrap(self, wrapped_key: bytes, key_id: str, bound_to: str) -> bytes:
        key = self._keys().get(key_id)
        if key is None:
            message = f"The key {key_id} that hides this value is not in {self._path.name}."
            raise HeadwayError("config.unreadable", message)
        return _decrypt(key, wrapped_key, _wrap_name(key_id, bound_to))

    def _keys(self) -> dict[str, AESGCM]:
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._seen is None or self._seen[0] != stamp:
                self._seen = (stamp, {name: AESGCM(key) for name, key in read_keys(self._path).items()})
        except OSError as error:
            message = f"The configuration key {self._path.name} cannot be read: {type(error).__name__}."
            raise HeadwayError("config.unreadable", message) from error
        return self._seen[1]


def read_keys(path: Path) -> dict[str, bytes]:
    """The keys of a file, newest first. Raises config.unreadable where it holds anything else, and OSError."""
    found: dict[str, bytes] = {}
    for line in path.read_text().splitlines():
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES or name in found:
            raise HeadwayError("config.unreadable", f"A line of {path.name} is no key: `<id> <base64 of 32 bytes>`.")
        found[name] = key
    if not found:
        raise HeadwayError("config.unreadable", f"There is no key in {path.name}.")
    return found


def make_key_file(path: Path, *, shared: bool = False) -> None:
    """A file with one new key, readable by its owner alone. What is there already stays: it cannot be made again.

    `shared`: by the folder's group too, where the folder hands its group on (the set-group-ID bit).
    """
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = 0o640 if shared and path.parent.stat().st_mode & stat.S_ISGID else 0o600
    _write(path, [_new_line()], over=False, mode=mode)


def new_key() -> str:
    """One line of a key file: for whoever keeps secrets as files of his own."""
    return _new_line().strip()


def add_key(path: Path) -> str:
    """Put a new key before the others; its id."""
    line = _new_line()
    _write(path, [line, *(_line(name, key) for name, key in read_keys(path).items())], over=True)
    return line.partition(" ")[0]


def forget_keys(path: Path, gone: set[str]) -> None:
    """Take keys out of the file for good. The first one stays, whatever is asked."""
    first, *rest = read_keys(path).items()
    _write(path, [_line(name, key) for name, key in [first, *(one for one in rest if one[0] not in gone)]], over=True)


def _new_line() -> str:
    return _line(secrets.token_hex(4), secrets.token_bytes(KEY_BYTES))


def _line(name: str, key: bytes) -> str:
    return f"{name} {base64.b64encode(key).decode()}"


def _write(path: Path, lines: list[str], *, over: bool, mode: int = 0o600) -> None:
    """Whole or not at all, durable. One that is replaced keeps its owner, its group and its mode."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            if over:
                known = path.stat()
                mode = stat.S_IMODE(known.st_mode)
                os.fchown(handle, known.st_uid, known.st_gid)
            os.fchmod(handle, mode)
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if over:
            os.replace(part, path)
        else:
            try:
                os.link(part, path)
            except FileExistsError:
                return
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _wrap_name(key_id: str, bound_to: str) -> str:
    return f"key {key_id} {bound_to}"


def _encrypt(key: AESGCM, plain: bytes, bound_to: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plain, bound_to.encode())


def _decrypt(key: AESGCM, sealed: bytes, bound_to: str) -> bytes:
    try:
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
    except (InvalidTag, ValueError):
        raise HeadwayError("config.unreadable", "A hidden value is not what was written for its row.") from None
