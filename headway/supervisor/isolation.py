"""Which wall stands between the roles of a stack: a uid each where root allows it, else one for all, and why.

A role whose work needs root itself is left out alone: the host worker where an engine or systemd keeps the apps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from headway.supervisor import accounts as uids
from headway.supervisor import trial
from headway.supervisor.accounts import Accounts
from headway.supervisor.folder import Folder

SIGNING_FILES: Final = ("HEADWAY_SIGSTORE_TRUST", "HEADWAY_SIGSTORE_TOKEN_FILE")


@dataclass(frozen=True)
class Walls:
    """`accounts` is None where there are none: then `what` is the reason and `fix` what to do, both for people.

    With accounts, `what` says who is left out, if anybody is.
    """

    accounts: Accounts | None
    what: str = ""
    fix: str = ""


def between_roles(
    folder: Folder,
    programs: Sequence[str],
    repositories: Sequence[str],
    settings: Mapping[str, str],
    *,
    wanted: bool = True,
) -> Walls:
    """What is possible here, tried with real processes where it is not known from the last time."""
    if not wanted:
        return Walls(None, "--one-uid was asked for", "Start without --one-uid.")
    if os.geteuid() != 0:
        fix = "Run `headway up` as root, or the roles as services, each as its own user."
        return Walls(None, "only root can give each role its own", fix)
    more = [path for name in ("git", "bwrap", "npm", "node") if (path := shutil.which(name)) is not None]
    runtime = settings.get("HEADWAY_RUNTIME", "process")
    root = ("host",) if runtime != "process" else ()
    low = 0 < int(settings.get("HEADWAY_SITES_TLS_PORT", "0")) < 1024
    signing = lent_to_signing(folder, settings)
    made = uids.accounts(folder, [*programs, *more], repositories, low_ports=low, signing=signing, root=root)
    if complaint := trial.obstacle(folder, made):
        what = f"a role under a uid of its own does not start here ({complaint})"
        return Walls(None, what, "Let other uids read where Headway is installed, and root make namespaces.")
    if root:
        fix = "Take HEADWAY_RUNTIME=process, or run a host worker of its own elsewhere (docs/hosts.md)."
        return Walls(made, f"HEADWAY_RUNTIME={runtime} needs a host worker that is root", fix)
    return Walls(made)


def lent_to_signing(folder: Folder, settings: Mapping[str, str]) -> list[str]:
    """The operator's files by which the signing worker proves who it is: Sigstore's, and those of keys in a service."""
    given = [settings[name] for name in SIGNING_FILES if name in settings]
    for named in sorted(folder.path("keys").glob("*.uri")):
        service, _, rest = named.read_text().strip().partition(":")
        options = dict(parse_qsl(rest.partition("?")[2]))
        usual = str(Path.home() / ".aws") if service == "awskms" else ""
        given += [options.get(name, "") for name in ("token_file", "secret_file")]
        given.append(options.get("credentials_file", usual))
    return [path for path in dict.fromkeys(given) if os.path.isabs(path) and os.path.exists(path)]
