"""What a host refuses by itself, whatever the control worker and the database say. Rows, ledger, signatures: real."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import SQLModel, delete, select

from activities.ledger import About, Ledger
from activities.recorder import Recorder
from adapters.hosting.admission import FILE, Admission, needs_proof
from adapters.hosting.layout import HostFolders
from adapters.hosting.trust import Trust
from adapters.signer.bundle import Verified, attest
from adapters.signer.folder import KeyFolder
from adapters.signer.statement import BuildFacts, statement
from api.internal.admission import admission_of
from headway.broker import RollSpec
from headway.errors import HeadwayError
from headway.ids import new_id
from headway.policy import parse_policy
from store.models import Artifact, Build, Environment, Release, Rollout, Site, utcnow
from store.models_ledger import LedgerEntry
from store.models_policy import Decision, Policy
from store.policies import set_policy
from store.queue import claim_turn
from store.session import Store
from tests.api.doubles import MemoryObjects
from tests.workflows.rows import World

MAIN_ONLY = {"refs": ["main"]}


@dataclass
class Ground:
    """A platform's rows and ledger, and a host that has pinned its trust root."""

    store: Store
    world: World
    ledger: Ledger
    keys: KeyFolder
    recorder: Recorder
    trust: Trust
    folders: HostFolders

    def rule(self, document: dict, *, site: bool = False, entered: bool = True) -> Policy:
        with self.store.write() as session:
            environment = None if site else session.get_one(Environment, self.world.env_id)
            row = set_policy(
                session, session.get_one(Site, self.world.site_id), environment, parse_policy(document), {}
            )
        if entered:
            self.recorder.record_policies()
        return row

    def artifact(self, name: str, ref: str = "main") -> tuple[str, bytes]:
        """A signed artifact and its bundle."""
        digest, build = hashlib.sha256(name.encode()).hexdigest(), f"build_{name}"
        facts = BuildFacts(
            site_id=self.world.site_id,
            env_id=self.world.env_id,
            build_id=build,
            digest=digest,
            repository="https://git.example.test/shop.git",
            ref=ref,
            commit_sha="1" * 40,
            source_sha256="2" * 64,
        )
        about = About(f"build:{build}", "build", self.world.site_id)
        bundle = attest(statement(facts), self.keys.current(), ledger=self.ledger.about(about))
        artifact_id = self.world.artifact(digest)
        with self.store.write() as session:
            row = session.get_one(Artifact, artifact_id)
            row.build_id = build
            row.log_index = int(json.loads(bundle)["verificationMaterial"]["tlogEntries"][0]["logIndex"])
        self.build(artifact_id, build, ref)
        return artifact_id, bundle

    def build(self, artifact_id: str, build_id: str, ref: str) -> None:
        with self.store.write() as session:
            session.add(
                Build(
                    id=build_id,
                    site_id=self.world.site_id,
                    env_id=self.world.env_id,
                    job_id=new_id("job"),
                    ref=ref,
                    status="succeeded",
                    artifact_id=artifact_id,
                    finished_at=utcnow(),
                )
            )

    def turn(self, artifact_id: str, kind: str = "deploy") -> str:
        """Accept a rollout and ask for its turn, as its run does; its id."""
        about = kind == "repair"
        job = self.world.act(kind) if about else self.world.accept_roll(artifact_id, kind)
        with self.store.write() as session:
            return claim_turn(session, job.id).id

    def force(self, rollout_id: str) -> None:
        """What a thief of the control worker writes: it is allowed, and carried out."""
        with self.store.write() as session:
            rollout = session.get_one(Rollout, rollout_id)
            rollout.status, rollout.finished_at, rollout.error = "running", None, None
            rollout.apply_seq, rollout.undo_seq = 101, 102
            for row in session.exec(select(Decision).where(Decision.rollout_id == rollout_id)).all():
                row.outcome, row.findings, row.decided_at = "allowed", [], utcnow()

    def end(self, rollout_id: str) -> None:
        with self.store.write() as session:
            rollout = session.get_one(Rollout, rollout_id)
            rollout.status, rollout.finished_at = "succeeded", utcnow()

    def spec(self, rollout_id: str) -> RollSpec:
        """What the broker hands out, once the signing worker has looked."""
        self.recorder.record_decisions()
        return self.raw_spec(rollout_id)

    def raw_spec(self, rollout_id: str) -> RollSpec:
        with self.store.read() as session:
            rollout = session.get_one(Rollout, rollout_id)
            artifact = session.get_one(Artifact, rollout.artifact_id)
            found = admission_of(session, rollout)
        urls = dict.fromkeys(("manifest_url", "layout_url", "bundle_url"), "")
        return RollSpec(
            rollout_id=rollout_id,
            job_id=rollout.job_id,
            kind=rollout.kind,
            site_id=artifact.site_id,
            env_id=rollout.env_id,
            artifact_id=artifact.id,
            digest=artifact.digest,
            packs={},
            apply_seq=rollout.apply_seq or 0,
            undo_seq=rollout.undo_seq or 0,
            hostnames=[],
            policies=found.policies,
            proof=found.proof,
            awaited=found.awaited,
            **urls,
        )

    def admit(self, spec: RollSpec, bundle: bytes) -> None:
        verified = self.trust.verify(bundle, spec.digest, spec.site_id)
        Admission(self.folders, self.trust.check_record).admit(spec, verified)

    def place(self, digest: str) -> None:
        """A release of the environment leads to the artifact."""
        release = self.folders.environment(self.world.env_id) / "r" / "1"
        release.mkdir(parents=True)
        (release / "root").symlink_to(f"../../../../trees/{digest}/root")


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    store = Store.open(f"sqlite:///{tmp_path}/headway.db")
    SQLModel.metadata.create_all(store.engine)
    ledger, keys = Ledger.open(store, tmp_path / "ledger", "ledger.test"), KeyFolder(tmp_path / "keys")
    recorder = Recorder(store, MemoryObjects(), ledger, keys, tmp_path / "ledger")
    keys.current()
    recorder.announce()
    ledger.publish(tmp_path / "ledger")
    folders = HostFolders(tmp_path / "host")
    folders.prepare()
    trust = Trust(folders.trust, tmp_path / "keys", tmp_path / "ledger")
    yield Ground(store, World.make(store), ledger, keys, recorder, trust, folders)
    store.close()


def refused(work: Callable[[], object], why: str) -> None:
    with pytest.raises(HeadwayError) as caught:
        work()
    assert caught.value.code == "policy.refused", caught.value
    assert why in caught.value.message, caught.value.message


def test_what_was_allowed_is_admitted_and_remembered(ground: Ground) -> None:
    ground.rule(MAIN_ONLY)
    art, bundle = ground.artifact("one")
    rollout = ground.turn(art)
    spec = ground.spec(rollout)
    ground.admit(spec, bundle)
    ground.admit(spec, bundle)
    known = json.loads((ground.folders.environment(ground.world.env_id) / FILE).read_bytes())
    assert known["site"] == ground.world.site_id
    assert known["policies"][ground.world.env_id]["version"] == 1


def test_where_there_was_no_policy_nothing_is_asked(ground: Ground) -> None:
    art, bundle = ground.artifact("one")
    spec = ground.spec(ground.turn(art))
    assert (spec.policies, spec.proof, spec.awaited) == ([], "", False)
    ground.admit(spec, bundle)


def test_a_refusal_that_a_thief_turns_into_a_yes_is_disputed_and_refused(ground: Ground) -> None:
    ground.rule(MAIN_ONLY)
    art, bundle = ground.artifact("wild", ref="feature/x")
    rollout = ground.turn(art)
    with ground.store.read() as session:
        assert session.get_one(Rollout, rollout).status == "failed"
    ground.force(rollout)
    refused(lambda: ground.admit(ground.spec(rollout), bundle), "the decision of its policies is: disputed")


def test_a_hold_that_a_thief_lets_go_is_disputed_and_refused(ground: Ground) -> None:
    ground.rule({"approvals": {"needed": 1, "accounts": ["acc_1"]}})
    art, bundle = ground.artifact("one")
    rollout = ground.turn(art)
    ground.force(rollout)
    refused(lambda: ground.admit(ground.spec(rollout), bundle), "disputed")


@pytest.mark.parametrize("seconds", [-2, 2])
def test_a_decision_at_the_moment_of_a_change_is_borne_out_by_what_it_was_held_to(ground: Ground, seconds: int) -> None:
    """By clocks that differ, or a change that was written first and committed after."""
    first = ground.rule({"refs": ["main", "x"]})
    art, bundle = ground.artifact("one")
    if seconds > 0:
        first = ground.rule(MAIN_ONLY)
    rollout = ground.turn(art)
    if seconds < 0:
        ground.rule(MAIN_ONLY)
    with ground.store.write() as session:
        decision = session.exec(select(Decision).where(Decision.rollout_id == rollout)).one()
        assert [one["id"] for one in decision.policies] == [first.id]
        newest = session.exec(select(Policy).where(Policy.version == 2)).one()
        assert decision.decided_at is not None
        newest.created_at = decision.decided_at + timedelta(seconds=seconds)
    ground.admit(ground.spec(rollout), bundle)


def test_a_decision_that_forgets_a_policy_is_disputed(ground: Ground) -> None:
    ground.rule(MAIN_ONLY)
    art, _ = ground.artifact("one")
    ground.turn(art)
    with ground.store.write() as session:
        policy, decision = session.exec(select(Policy)).one(), session.exec(select(Decision)).one()
        decision.policies, policy.created_at = [], policy.created_at - timedelta(seconds=6)
    ground.recorder.record_decisions()
    with ground.store.read() as session:
        entry = session.exec(select(LedgerEntry).where(LedgerEntry.kind == "decision")).one()
    assert b"disputed" in base64.b64decode(json.loads(entry.envelope)["payload"])


def test_a_first_policy_is_not_for_what_was_under_way(ground: Ground) -> None:
    art, bundle = ground.artifact("one")
    rollout = ground.turn(art)
    ground.rule(MAIN_ONLY)
    ground.admit(ground.spec(rollout), bundle)
    ground.end(rollout)
    wild, wild_bundle = ground.artifact("wild", ref="feature/x")
    later = ground.turn(wild)
    ground.force(later)
    refused(lambda: ground.admit(ground.spec(later), wild_bundle), "disputed")


def test_a_policy_that_a_thief_takes_away_is_missed(ground: Ground) -> None:
    ground.rule(MAIN_ONLY)
    art, bundle = ground.artifact("one")
    first = ground.turn(art)
    ground.admit(ground.spec(first), bundle)
    ground.end(first)
    with ground.store.write() as session:
        session.exec(delete(Policy))
    wild, wild_bundle = ground.artifact("wild", ref="feature/x")
    spec = ground.spec(ground.turn(wild))
    assert spec.policies == []
    refused(lambda: ground.admit(spec, wild_bundle), "this host knows version 1 of the policy")


def test_an_older_policy_is_not_taken_again(ground: Ground) -> None:
    ground.rule({})  # nothing stands: no version
    ground.rule({"refs": ["*"]})
    art, bundle = ground.artifact("one")
    first = ground.turn(art)
    old = ground.spec(first)
    ground.admit(old, bundle)
    ground.end(first)
    ground.rule(MAIN_ONLY)
    second = ground.turn(art)
    ground.admit(ground.spec(second), bundle)
    refused(lambda: ground.admit(old, bundle), "this host knows version")


def test_a_policy_that_was_taken_back_by_rule_is_taken_back(ground: Ground) -> None:
    ground.rule(MAIN_ONLY)
    art, bundle = ground.artifact("one")
    first = ground.turn(art)
    ground.admit(ground.spec(first), bundle)
    ground.end(first)
    ground.rule({})
    wild, wild_bundle = ground.artifact("wild", ref="feature/x")
    ground.admit(ground.spec(ground.turn(wild)), wild_bundle)


def test_the_yes_to_one_deployment_is_no_yes_to_another(ground: Ground) -> None:
    ground.rule({"refs": ["main", "wild"]})
    art, bundle = ground.artifact("one")
    other, other_bundle = ground.artifact("two")
    first = ground.turn(art)
    good = ground.spec(first)
    ground.end(first)
    second = ground.turn(other)
    spec = ground.spec(second)
    refused(lambda: ground.admit(spec.model_copy(update={"proof": good.proof}), other_bundle), "another artifact")
    again = good.model_copy(update={"rollout_id": second})
    refused(lambda: ground.admit(again, bundle), "another deployment")
    refused(lambda: ground.admit(spec.model_copy(update={"proof": ""}), other_bundle), "no signed decision")
    policy = spec.policies[0]
    refused(lambda: ground.admit(spec.model_copy(update={"proof": policy}), other_bundle), "about something else")
    refused(lambda: ground.admit(spec.model_copy(update={"policies": [good.proof]}), other_bundle), "is none")


def test_a_forged_record_is_no_record(ground: Ground) -> None:
    ground.rule(MAIN_ONLY)
    art, bundle = ground.artifact("one")
    spec = ground.spec(ground.turn(art))
    for change in ({"policies": [spec.policies[0][:-9] + spec.policies[0][-8:]]}, {"proof": "{}"}):
        with pytest.raises(HeadwayError) as caught:
            ground.admit(spec.model_copy(update=change), bundle)
        assert caught.value.code == "artifact.signature_invalid"


def test_an_environment_stays_its_sites(ground: Ground) -> None:
    art, bundle = ground.artifact("one")
    spec = ground.spec(ground.turn(art))
    ground.admit(spec, bundle)
    stolen = spec.model_copy(update={"site_id": "site_01OTHEROTHEROTHEROTHEROT"})
    verified: Verified = ground.trust.verify(bundle, spec.digest, spec.site_id)
    refused(lambda: Admission(ground.folders, ground.trust.check_record).admit(stolen, verified), "is another site's")


def test_the_minimum_release_is_judged_here_as_well(ground: Ground) -> None:
    """Even with a signed yes: the bundle's own place in the ledger tells which is older."""
    old, old_bundle = ground.artifact("old")
    new, _ = ground.artifact("new")
    with ground.store.write() as session:
        release = Release(
            id=new_id("rel"),
            site_id=ground.world.site_id,
            env_id=ground.world.env_id,
            rollout_id=new_id("dep"),
            artifact_id=new,
            seq=1,
            current=False,
        )
        session.add(release)
        session.flush()
        release_id = release.id
    ground.rule({"minimum_release": release_id})
    with ground.store.write() as session:  # a thief makes the old one look younger
        session.get_one(Artifact, old).created_at = utcnow()
    rollout = ground.turn(old)
    refused(lambda: ground.admit(ground.spec(rollout), old_bundle), "older than that of the minimum release")


def test_a_builder_that_is_not_among_them(ground: Ground) -> None:
    ground.rule({"builders": ["urn:headway:builder:v2"]})
    art, bundle = ground.artifact("one")
    rollout = ground.turn(art)
    ground.force(rollout)
    refused(lambda: ground.admit(ground.spec(rollout), bundle), "the builder urn:headway:builder:v1 is not among")


def test_a_rollback_to_what_is_here_waits_for_no_signature(ground: Ground) -> None:
    art, bundle = ground.artifact("one")
    ground.rule(MAIN_ONLY)
    rollout = ground.turn(art, "rollback")
    spec = ground.raw_spec(rollout)
    assert spec.awaited
    assert needs_proof(ground.folders, spec)
    refused(lambda: ground.admit(spec, bundle), "no signed decision")
    ground.place(spec.digest)
    assert not needs_proof(ground.folders, spec)
    ground.admit(spec, bundle)


def test_a_deployment_waits_until_policy_and_decision_are_entered(ground: Ground) -> None:
    ground.rule(MAIN_ONLY, entered=False)
    art, bundle = ground.artifact("one")
    rollout = ground.turn(art)
    assert ground.raw_spec(rollout).awaited
    ground.recorder.record_policies()
    assert ground.raw_spec(rollout).awaited
    ground.recorder.record_decisions()
    spec = ground.raw_spec(rollout)
    assert not spec.awaited
    ground.admit(spec, bundle)


def test_a_host_that_is_new_takes_what_runs_by_its_release(ground: Ground) -> None:
    """A repair is not judged: what a policy came after is known by the release's record."""
    art, bundle = ground.artifact("one")
    first = ground.turn(art)
    with ground.store.write() as session:
        release = Release(
            id=new_id("rel"),
            site_id=ground.world.site_id,
            env_id=ground.world.env_id,
            rollout_id=first,
            artifact_id=art,
            seq=1,
        )
        session.add(release)
        session.get_one(Environment, ground.world.env_id).active_release_id = release.id
    ground.end(first)
    ground.recorder.record()
    ground.rule(MAIN_ONLY)
    repair = ground.turn(art, "repair")
    spec = ground.spec(repair)
    ground.admit(spec, bundle)
    refused(lambda: ground.admit(spec.model_copy(update={"kind": "deploy"}), bundle), "another deployment")
