"""What `headway verify` is given by its address: brought here first, then checked like any file."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from headway.errors import HeadwayError

MOST: Final = 4 << 30
TIMEOUT: Final = 60.0
# What `headway artifacts fetch` leaves, but for the files: they may be many.
NAMES: Final = ("manifest.json", "bundle.json")
# One of the first two is there, as the artifact is signed with a key or without.
PERHAPS: Final = ("key.pub", "sigstore.json", "trusted_root.json")


def is_url(target: str) -> bool:
    return target.startswith(("https://", "http://"))


def bring(url: str, folder: Path) -> Path:
    """A file, or with a slash at its end the folder of a fetched artifact, brought into `folder`.

    No key of the API goes with it: what proves itself is served to anybody. Raises request.invalid_parameter.
    """
    try:
        path = httpx.URL(url).path
    except httpx.InvalidURL:
        raise HeadwayError("request.invalid_parameter", "That is no address.", param="target") from None
    with httpx.Client(timeout=TIMEOUT, follow_redirects=True, trust_env=True) as client:
        if not path.endswith("/"):
            name = Path(path).name or "document"
            return _fetch(client, url, folder / name, required=True)
        for name in (*NAMES, *PERHAPS):
            _fetch(client, url + name, folder / name, required=name in NAMES)
    return folder


def _fetch(client: httpx.Client, url: str, place: Path, *, required: bool) -> Path:
    try:
        with client.stream("GET", url) as answer:
            if answer.status_code == 404 and not required:
                return place
            answer.raise_for_status()
            with place.open("wb") as file:
                for chunk in answer.iter_bytes(1 << 20):
                    if file.tell() + len(chunk) > MOST:
                        raise HeadwayError("request.invalid_parameter", f"{place.name} is larger than {MOST} bytes.")
                    file.write(chunk)
    except httpx.HTTPError as error:
        why = f"answers {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else "cannot be read"
        shown = urlsplit(url)._replace(query="", fragment="").geturl()
        raise HeadwayError("request.invalid_parameter", f"{shown} {why}.", param="target") from None
    return place
