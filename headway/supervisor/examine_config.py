"""What `doctor --config` looks at: every setting by itself, and the secrets among them, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from headway.errors import HeadwayError
from headway.settings import SECRETS, Settings
from headway.supervisor.findings import Finding, failure, ok, warning

SHORTEST: Final = 16
# What examples, images and tutorials are filled with.
DEFAULTS: Final = ("change", "default", "example", "headway", "password", "postgres", "replace", "secret", "todo")
ROLES: Final = ("control", "builder", "signing", "host")
# Read by the launcher, the command line and our own start-up, not by `Settings`.
OTHERS: Final = {
    "HEADWAY_API_URL",
    "HEADWAY_CGROUPS",
    "HEADWAY_READY_FILE",
    "HEADWAY_RUN",
    "HEADWAY_TOKEN",
    "HEADWAY_VERSION",
}


def settings() -> Iterator[Finding]:
    """Whether the settings can be read, and whether a variable is set that none of them has."""
    try:
        Settings()
    except ValidationError as error:
        for one in error.errors():
            yield failure("settings", f"{one['loc'][0]}: {one['msg']}", "See docs/settings.md.")
        return
    except HeadwayError as error:
        yield failure("settings", error.message, "See docs/settings.md.")
        return
    known = {field.alias or f"HEADWAY_{name.upper()}" for name, field in Settings.model_fields.items()}
    known |= OTHERS | {f"{name}_FILE" for name in SECRETS}
    unknown = sorted(name for name in os.environ if name.startswith("HEADWAY_") and name not in known)
    if unknown:
        yield warning("settings", f"nothing reads {', '.join(unknown)}", "Look for a typing error.")
    yield ok("settings", f"{len(known)} are known, {sum(name in os.environ for name in known)} are set")


def temporal() -> Iterator[Finding]:
    from temporal.client import connection

    now = Settings()
    try:
        reach = connection(now.temporal_address, now.temporal_namespace, now.temporal_config_file, now.temporal_profile)
    except HeadwayError as error:
        yield failure("Temporal", error.message, "Correct the profile, or unset TEMPORAL_CONFIG_FILE.")
        return
    yield ok("Temporal", f"{reach['target_host']}, namespace {reach['namespace']}")


def database() -> Iterator[Finding]:
    """The address, and a password that is nobody's default."""
    url = Settings().database_url
    if not url:
        yield ok("database", "SQLite in the data folder")
        return
    parts = urlsplit(url)
    if not parts.scheme.startswith(("postgresql", "sqlite")):
        yield failure("database", f"DATABASE_URL begins with {parts.scheme[:20]!r}", "Use postgresql:// or sqlite:///.")
    elif parts.scheme.startswith("postgresql") and parts.password and (odd := weak(unquote(parts.password))):
        yield failure("database", f"the password in DATABASE_URL {odd}", "Choose one: `headway make-secrets FOLDER`.")
    else:
        yield ok("database", f"{parts.scheme} at {parts.hostname or 'a file'}")


def object_store() -> Iterator[Finding]:
    now = Settings()
    for name, value in (("AWS_ACCESS_KEY_ID", now.s3_access_key), ("AWS_SECRET_ACCESS_KEY", now.s3_secret_key)):
        given = value.get_secret_value()
        if given and (odd := weak(given)):
            yield failure("object store", f"{name} {odd}", "Choose one: `headway make-secrets FOLDER`.")
            return
    if now.s3_endpoint == Settings.model_fields["s3_endpoint"].default:
        yield ok("object store", "the embedded one")
        return
    if not now.s3_access_key.get_secret_value() and not (now.secrets_path / "s3.json").exists():
        yield failure("object store", "there is no AWS_ACCESS_KEY_ID, and no AWS_ACCESS_KEY_ID_FILE", "Set one.")
        return
    yield ok("object store", now.s3_endpoint)


def runtime() -> Iterator[Finding]:
    """Who is to keep the apps of a serving machine."""
    now = Settings()
    if now.runtime == "docker" and not now.engine_image:
        yield failure(
            "runtime",
            "HEADWAY_RUNTIME is docker, and HEADWAY_ENGINE_IMAGE names no image",
            "Name one: docs/services.md.",
        )
    elif now.runtime == "docker" and not now.engine_socket.is_socket():
        yield warning(
            "runtime", f"{now.engine_socket} is no socket on this machine", "A serving machine needs it there."
        )
    else:
        yield ok("runtime", f"apps are kept by {now.runtime}")


def credentials() -> Iterator[Finding]:
    """The roles' credentials for the broker and the operator's key, where they are files that somebody else made."""
    now = Settings()
    wanted = {f"broker credential of {role}": now.secrets_path / f"broker-{role}.token" for role in ROLES}
    if now.admin_key_file is not None:
        wanted["operator's key"] = now.admin_key_file
    if now.secrets_dir is None and now.admin_key_file is None:
        yield ok("credentials", "made by the API in its data folder")
        return
    broken = False
    for name, path in wanted.items():
        if odd := _odd_file(path):
            broken = True
            yield failure("credentials", f"the {name}, {path}, {odd}", "Make them: `headway make-secrets FOLDER`.")
    if not broken:
        yield ok("credentials", f"{len(wanted)} files")


def signing() -> Iterator[Finding]:
    """Half of a keyless configuration signs nothing: it is said before a build waits for it."""
    now = Settings()
    if now.signing_mode == "key":
        yield ok("signing", "with keys")
        return
    given = {"HEADWAY_SIGSTORE_IDENTITY": now.sigstore_identity, "HEADWAY_SIGSTORE_ISSUER": now.sigstore_issuer}
    if missing := [name for name, value in given.items() if not value]:
        yield failure("signing", f"keyless, without {' and '.join(missing)}", "Say whose signatures count.")
    elif now.sigstore_trust != "public" and not Path(now.sigstore_trust).is_file():
        yield failure("signing", "HEADWAY_SIGSTORE_TRUST is no file", "Name a client trust configuration, or `public`.")
    elif now.sigstore_token_file is not None and not now.sigstore_token_file.is_file():
        yield warning("signing", f"there is no {now.sigstore_token_file} yet", "Builds wait until the token is there.")
    else:
        yield ok("signing", f"keyless, as {now.sigstore_identity}")


def weak(value: str) -> str:
    """What is wrong with a secret, as the end of a sentence; "" if nothing is."""
    if len(value) < SHORTEST:
        return f"has {len(value)} characters: {SHORTEST} are the least"
    if len(set(value)) < 6 or any(word in value.lower() for word in DEFAULTS):
        return "looks like a default"
    return ""


def _odd_file(path: Path) -> str:
    try:
        value = path.read_text().strip()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return weak(value.removeprefix("mfk_live_")) if value else "is empty"
