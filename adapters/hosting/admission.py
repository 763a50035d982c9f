"""What a host judges by itself before it places anything: whose environment it is, and what its policies have decided.

The control worker decides what is rolled; a host believes signatures. It has pinned the ledger and its keys, keeps the
site of each environment and the newest policies that it has seen (`env/<id>/admission.json`), and never goes back.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from adapters.hosting.durable import sync_folder, write_file
from adapters.hosting.layout import HostFolders
from adapters.hosting.releases import placed_digests
from adapters.signer.bundle import Verified
from adapters.signer.records import DECISION_TYPE, POLICY_TYPE, ROLLOUT_TYPE
from headway.broker import RollSpec
from headway.errors import HeadwayError

FILE: Final = "admission.json"
# What brings an artifact there needs a decision of its own; a rollback to what is here, or a repair of it, none.
BRINGS: Final = ("deploy", "promote")
Json = dict[str, Any]
CheckRecord = Callable[[bytes], Verified]


@dataclass(frozen=True)
class Held:
    """A policy that is held to: signed, and not older than the newest that was seen here."""

    id: str
    version: int
    digest: str
    document: Json
    minimum: Json | None


class Admission:
    """`check` raises artifact.signature_invalid for what is no record of this platform's."""

    def __init__(self, folders: HostFolders, check: CheckRecord) -> None:
        self._folders = folders
        self._check = check

    def admit(self, spec: RollSpec, verified: Verified) -> None:
        """Raises policy.refused with the first reason; artifact.signature_invalid for a record that is none."""
        known = self._known(spec.env_id)
        if known.get("site", spec.site_id) != spec.site_id:
            raise _refused(f"the environment {spec.env_id} is another site's")
        held = self._held(spec, known.get("policies", {}))
        ruling = [one for one in held.values() if one.document]
        for one in ruling:
            _judge(one, spec, verified)
        if ruling and needs_proof(self._folders, spec):
            self._require_proof(spec, ruling)
        seen = {subject: {"version": one.version, "digest": one.digest} for subject, one in held.items()}
        self._keep(spec.env_id, {"site": spec.site_id, "policies": {**known.get("policies", {}), **seen}}, known)

    def _held(self, spec: RollSpec, known: Mapping[str, Json]) -> dict[str, Held]:
        found: dict[str, Held] = {}
        for raw in spec.policies:
            record = self._check(raw.encode())
            predicate = record.statement["predicate"]
            if record.statement["predicateType"] != POLICY_TYPE or predicate["site"] != spec.site_id:
                raise _refused("a record that should be a policy of the site is none")
            if predicate["subject"] not in (spec.site_id, spec.env_id):
                raise _refused("a policy is of another environment")
            found[predicate["subject"]] = Held(
                predicate["id"], predicate["version"], record.digest, predicate["document"], predicate["minimum"]
            )
        for subject, newest in known.items():
            given = found.get(subject)
            if given is None or given.version < newest["version"]:
                what = f"version {given.version}" if given else "none"
                known_here = f"this host knows version {newest['version']} of the policy of {subject}"
                lost = "if the database was restored, set it again"
                raise _refused(f"{known_here}, and was given {what} ({lost})")
            if given.version == newest["version"] and given.digest != newest["digest"]:
                raise _refused(f"there are two policies of {subject} with the version {given.version}")
        return found

    def _require_proof(self, spec: RollSpec, ruling: list[Held]) -> None:
        if not spec.proof:
            raise _refused("there is no signed decision of its policies")
        record = self._check(spec.proof.encode())
        kind, predicate = record.statement["predicateType"], record.statement["predicate"]
        env = predicate["environment"]["id"] if kind == ROLLOUT_TYPE else predicate.get("environment")
        if kind not in (DECISION_TYPE, ROLLOUT_TYPE) or (predicate["site"], env) != (spec.site_id, spec.env_id):
            raise _refused("what should be the decision of its policies is about something else")
        if record.digest != spec.digest:
            raise _refused("the decision of its policies is about another artifact")
        if kind == DECISION_TYPE and predicate["outcome"] != "allowed":
            raise _refused(f"the decision of its policies is: {predicate['outcome']}")
        if spec.kind in BRINGS:
            self._require_own(spec, kind, predicate, ruling)

    def _require_own(self, spec: RollSpec, kind: str, predicate: Json, ruling: list[Held]) -> None:
        if kind != DECISION_TYPE or predicate["deployment"] != spec.rollout_id:
            raise _refused("the decision of its policies is about another deployment")
        named = {(one["id"], one["version"], one["digest"]) for one in predicate["policies"]}
        if named != {(one.id, one.version, one.digest) for one in ruling}:
            raise _refused("the decision is not by the policies that stand")

    def _known(self, env_id: str) -> Json:
        try:
            found: Json = json.loads((self._folders.environment(env_id) / FILE).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            message = f"{FILE} of {env_id} is damaged: remove it if you trust what the platform says now."
            raise HeadwayError("roll.place_failed", message) from None
        return found

    def _keep(self, env_id: str, now: Json, before: Json) -> None:
        if now == before:
            return
        folder = self._folders.environment(env_id)
        folder.mkdir(exist_ok=True)
        aside = self._folders.tmp / f"admission-{secrets.token_hex(8)}"
        write_file(aside, json.dumps(now, sort_keys=True).encode())
        aside.replace(folder / FILE)
        sync_folder(folder)


def needs_proof(folders: HostFolders, spec: RollSpec) -> bool:
    """Not where a release of the environment leads to the artifact already: it was admitted when it was placed."""
    return spec.kind in BRINGS or spec.digest not in placed_digests(folders, spec.env_id)


def _judge(policy: Held, spec: RollSpec, verified: Verified) -> None:
    """What the artifact's own signed statement tells of the rules; the rest is in the decision."""
    builder = verified.statement["predicate"]["runDetails"]["builder"]["id"]
    builders = policy.document.get("builders")
    if builders is not None and not any(fnmatchcase(builder, pattern) for pattern in builders):
        raise _refused(f"the builder {builder} is not among {', '.join(builders)}")
    # A keyless bundle has its index in another log: there the decision alone tells.
    minimum = policy.minimum if not verified.key_hint.startswith("keyless:") else None
    if minimum is None or minimum["logIndex"] is None or verified.log_index is None or minimum["digest"] == spec.digest:
        return
    if verified.log_index < minimum["logIndex"]:
        raise _refused("the artifact is older than that of the minimum release")


def _refused(why: str) -> HeadwayError:
    return HeadwayError("policy.refused", f"The host refuses it: {why}.")
