"""The certificate authorities that a build's clients trust: the system's, and what the host's clients trust beside."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

INSIDE = "/etc/ssl/certs/ca-certificates.crt"
SYSTEM = (INSIDE, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")
VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_cafile",
    "YARN_HTTPS_CA_FILE_PATH",
)


def bundle(state: Path, extra: Iterable[Path] = ()) -> Path | None:
    """The file to show at `INSIDE`: the system's as it is, or joined with `extra` in the state folder."""
    found = next(
        (path for name in (os.environ.get("SSL_CERT_FILE"), *SYSTEM) if name and (path := Path(name)).is_file()), None
    )
    texts = {path.resolve(): path.read_text(errors="replace") for path in extra if path.is_file()}
    if found is None and not texts:
        return None
    known = found.read_text(errors="replace") if found is not None else ""
    added = [text.strip() for text in texts.values() if text.strip() not in known]
    if found is not None and not added:
        return found
    joined, text = state / "ca-certificates.crt", "\n".join([known.strip(), *added]) + "\n"
    if not joined.is_file() or joined.read_text() != text:
        state.mkdir(parents=True, exist_ok=True)
        # Runs that have it mounted keep what they began with.
        fresh = state / f".ca-certificates.{os.getpid()}-{threading.get_ident()}"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.replace(joined)
    return joined
