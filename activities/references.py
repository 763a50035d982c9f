"""Every activity by name and type, for workflows: what each role's worker must offer. No code of the roles is imported.

A test holds these against the implementations, so that a name or a type cannot drift.
"""

from __future__ import annotations

from temporalio import activity

from temporal.messages import (
    Bake,
    Baked,
    BuildOrder,
    BuildOutput,
    BuildRef,
    Certified,
    CommandEnded,
    CommandOrder,
    DeliveryRef,
    DomainOrder,
    Ended,
    EnvironmentRef,
    ExecOrder,
    Failure,
    JobRef,
    Live,
    Looked,
    LookRef,
    Looks,
    Measured,
    Mend,
    MendTried,
    Placed,
    PlaceOrder,
    PollOrder,
    Reported,
    ReportRef,
    Retained,
    RetentionOrder,
    RetireOrder,
    RollOrder,
    RolloutRef,
    Scrubbed,
    ScrubOrder,
    Settle,
    Settled,
    Signed,
    Suspects,
    Switch,
    Taken,
    Tried,
    Turn,
    TurnRef,
    Verified,
)

# builders


@activity.defn(name="build.produce")
def produce(order: BuildOrder) -> BuildOutput:
    """Fetch, detect, build, pack and upload; beats; stops within 2 s of a cancel."""
    raise NotImplementedError


@activity.defn(name="sandbox.execute")
def execute(order: ExecOrder) -> Ended:
    """Run a command in a copy of a sandbox's tree, and hand in what it changed."""
    raise NotImplementedError


@activity.defn(name="remote.look")
def look(ref: LookRef) -> LookRef:
    """See which commit each branch of a remote is at, and hand that in."""
    raise NotImplementedError


# signing


@activity.defn(name="build.sign")
def sign(order: BuildOrder) -> Signed:
    """Write and sign the statement from the build's row and manifest; make the artifact's row."""
    raise NotImplementedError


# host/<id>


@activity.defn(name="host.take")
def take(ref: JobRef) -> Taken:
    """Take the job's turn, if it is to be had just now, and do as `host.roll`. Raises as that."""
    raise NotImplementedError


@activity.defn(name="host.roll")
def roll(order: RollOrder) -> Live:
    """Prepare, pass the point of no return, switch. Raises job.canceled if a cancel came first."""
    raise NotImplementedError


@activity.defn(name="host.prepare")
def prepare(order: RollOrder) -> Placed:
    """Verify the signature and the policy, place files by digest, start what runs and wait for its health."""
    raise NotImplementedError


@activity.defn(name="host.switch")
def switch(order: Switch) -> Live:
    """Compare and rename. Raises roll.stale where a later sequence number was applied."""
    raise NotImplementedError


@activity.defn(name="host.undo")
def undo(order: Switch) -> Live:
    """Put back what was live before."""
    raise NotImplementedError


@activity.defn(name="host.bake")
def bake(order: Bake) -> Measured:
    """Watch what was switched to for so long, or until it is bad; beats; ends at once on a cancel."""
    raise NotImplementedError


@activity.defn(name="host.run")
def run_command(order: CommandOrder) -> CommandEnded:
    """Run a one-off command to its end, once; beats; ends at once on a cancel."""
    raise NotImplementedError


@activity.defn(name="host.live")
def live(ref: EnvironmentRef) -> Live:
    """What is live, without a fence: a late step may change it."""
    raise NotImplementedError


@activity.defn(name="host.fence")
def fence(order: Switch) -> Live:
    """Refuse everything up to this sequence number from now on; say what is live."""
    raise NotImplementedError


@activity.defn(name="host.route")
def route(ref: EnvironmentRef) -> Live:
    """Lead the environment's host names to its folder."""
    raise NotImplementedError


@activity.defn(name="host.retire")
def retire(ref: EnvironmentRef) -> Live:
    """Take the environment's routes and folders away."""
    raise NotImplementedError


# control


@activity.defn(name="build.claim")
def claim_build(ref: JobRef) -> BuildOrder:
    """Take the job's build. Raises job.canceled or job.lost where it has ended."""
    raise NotImplementedError


@activity.defn(name="build.succeed")
def succeed_build(ref: BuildRef) -> Ended:
    raise NotImplementedError


@activity.defn(name="build.fail")
def fail_build(failure: Failure) -> Ended:
    raise NotImplementedError


@activity.defn(name="exec.claim")
def claim_exec(ref: JobRef) -> ExecOrder:
    raise NotImplementedError


@activity.defn(name="command.claim")
def claim_command(ref: JobRef) -> CommandOrder:
    raise NotImplementedError


@activity.defn(name="command.end")
def end_command(ended: CommandEnded) -> Ended:
    raise NotImplementedError


@activity.defn(name="rollout.claim")
async def claim_turn(ref: TurnRef) -> Turn:
    """Pick, supersede, cancel and number in one transaction; a rollback makes what runs make way."""
    raise NotImplementedError


@activity.defn(name="rollout.commit")
def commit(ref: RolloutRef) -> RolloutRef:
    """The point of no return. Raises job.canceled if a cancel came first."""
    raise NotImplementedError


@activity.defn(name="rollout.bake")
def note_bake(baked: Baked) -> RolloutRef:
    """Begin the bake, or keep what was measured. Raises job.canceled where somebody waits for its end."""
    raise NotImplementedError


@activity.defn(name="rollout.record")
async def record_release(ref: RolloutRef) -> Ended:
    """Append the release, end the job, and tell the next of the queue."""
    raise NotImplementedError


@activity.defn(name="rollout.fail")
async def fail_rollout(failure: Failure) -> Ended:
    """End the row, and tell the next of the queue. Past the point of no return it answers `committed` instead."""
    raise NotImplementedError


@activity.defn(name="rollout.settle")
async def settle(order: Settle) -> Ended:
    """End a rollout by what its hosts serve, and tell the next of the queue."""
    raise NotImplementedError


@activity.defn(name="job.cancel")
async def request_cancel(ref: JobRef) -> Ended:
    """Put the cancel flag on the row, and pass it on to the rollout's own run."""
    raise NotImplementedError


@activity.defn(name="environment.claim")
def claim_provision(ref: JobRef) -> PlaceOrder:
    raise NotImplementedError


@activity.defn(name="environment.repository")
def make_repository(order: PlaceOrder) -> PlaceOrder:
    """Make the hosted bare repository of a new site."""
    raise NotImplementedError


@activity.defn(name="environment.activate")
def activate(order: PlaceOrder) -> Ended:
    raise NotImplementedError


@activity.defn(name="environment.protected")
def protected(order: PlaceOrder) -> Ended:
    """Every host asks for the password, or does so no longer."""
    raise NotImplementedError


@activity.defn(name="environment.retire.claim")
def claim_retire(ref: JobRef) -> RetireOrder:
    raise NotImplementedError


@activity.defn(name="environment.retired")
def retired(order: RetireOrder) -> Ended:
    raise NotImplementedError


@activity.defn(name="job.fail")
def fail_job(failure: Failure) -> Ended:
    raise NotImplementedError


@activity.defn(name="reconcile.lost")
def lose_jobs(suspects: Suspects) -> Ended:
    """End claimed jobs whose runs are gone: as job.lost, or as canceled where that was asked for."""
    raise NotImplementedError


@activity.defn(name="remote.claim")
def claim_looks(order: PollOrder) -> Looks:
    """Take the remotes that are due for a look."""
    raise NotImplementedError


@activity.defn(name="webhook.deliver")
async def deliver(ref: DeliveryRef) -> Tried:
    """Make one try, and write down what became of it."""
    raise NotImplementedError


@activity.defn(name="forge.report")
async def report(ref: ReportRef) -> Reported:
    """Let the forge show what it should, once, and write down what became of it."""
    raise NotImplementedError


@activity.defn(name="domain.claim")
def claim_domain(ref: JobRef) -> DomainOrder:
    raise NotImplementedError


@activity.defn(name="domain.verify")
def verify_domain(order: DomainOrder) -> Verified:
    """Look at the DNS. Proven: the name is the environment's. Raises domain.taken and domain.not_found."""
    raise NotImplementedError


@activity.defn(name="domain.attach")
def attach_domain(certified: Certified) -> Ended:
    raise NotImplementedError


@activity.defn(name="domain.detach")
def detach_domain(order: DomainOrder) -> Ended:
    raise NotImplementedError


@activity.defn(name="domain.fail")
def fail_domain(failure: Failure) -> Ended:
    raise NotImplementedError


@activity.defn(name="host.certify")
def certify(order: DomainOrder) -> Certified:
    """Shake hands with the web server under the name, which makes it ask for a certificate."""
    raise NotImplementedError


@activity.defn(name="retention.claim")
def claim_retention(ref: JobRef) -> RetentionOrder:
    """What is to be done; without a job, what the schedule does."""
    raise NotImplementedError


@activity.defn(name="retention.mark")
def mark_unneeded(order: RetentionOrder) -> Retained:
    """Mark what nothing needs any more; of a dry run, what would be marked and collected."""
    raise NotImplementedError


@activity.defn(name="retention.collect")
def collect_marked(order: RetentionOrder) -> Retained:
    """Look again at what was marked long enough ago, and take it; and packs that nobody names."""
    raise NotImplementedError


@activity.defn(name="retention.delete")
def delete_doomed(order: RetentionOrder) -> Retained:
    """Delete the objects that are doomed, then the word that they are."""
    raise NotImplementedError


@activity.defn(name="retention.repack")
def repack(order: RetentionOrder) -> Retained:
    """Let layouts follow the copies of last time, and copy what counts of packs that are mostly dead."""
    raise NotImplementedError


@activity.defn(name="retention.report")
def report_retention(order: RetentionOrder, told: Retained) -> Ended:
    """Keep what was done for whoever asks, and end the job."""
    raise NotImplementedError


@activity.defn(name="scrub.claim")
def claim_scrub(ref: JobRef) -> ScrubOrder:
    """What is to be read; without a job, what the schedule reads."""
    raise NotImplementedError


@activity.defn(name="scrub.look")
def look_at_objects(order: ScrubOrder) -> Looked:
    """Read and hash the next objects; what is damaged becomes a finding."""
    raise NotImplementedError


@activity.defn(name="scrub.remake")
def remake_object(mend: Mend) -> MendTried:
    """Make a layout or a bundle anew from the rows."""
    raise NotImplementedError


@activity.defn(name="host.mend")
def mend_object(mend: Mend) -> MendTried:
    """Put a damaged object right from what a host has of it."""
    raise NotImplementedError


@activity.defn(name="scrub.settle")
def settle_finding(settled: Settled) -> MendTried:
    """Read the object again, and keep how it ended."""
    raise NotImplementedError


@activity.defn(name="scrub.report")
def report_scrub(order: ScrubOrder, told: Scrubbed) -> Ended:
    """Keep what was done for whoever asks, and end the job."""
    raise NotImplementedError
