"""Why a key's service gave nothing, in words of ours: the clients' own may hold addresses with credentials, or tokens.

The clients of AWS, Google, Azure and Vault have no base class in common, and most are not installed: what is asked of
an error is its shape.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,60}")


def why(error: Exception) -> str:
    """A few words: `it answered 403`, `it does not answer (ConnectError)`, `there is no file /run/secrets/vault`."""
    if isinstance(error, ImportError):
        return "its client is not installed: add securesystemslib[gcpkms] or securesystemslib[azurekms]"
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"there is no file {error.filename}"
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{error.filename} may not be read by this role"
    answered = _answered(error)
    kind = type(error).__name__
    if answered is not None:
        return f"it answered {answered}"
    if "Credential" in kind or "Authentication" in kind or "Profile" in kind:
        return f"its credentials are missing, or were refused ({kind})"
    if any(word in kind for word in ("Connect", "Timeout", "Transport", "Retry", "RequestError", "SSL", "Unavailable")):
        return f"it does not answer ({kind})"
    return f"its client failed ({kind})"


def _answered(error: Exception) -> str | None:
    """The code or the status of an answer that refuses."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        code = str(answer.get("Error", {}).get("Code", ""))
        return code if _CODE.fullmatch(code) else "an error"
    for status in (getattr(error, "code", None), getattr(error, "status_code", None), _status(answer)):
        if isinstance(status, int):
            return str(int(status))
    return None


def _status(answer: object) -> object:
    return getattr(answer, "status_code", None)
