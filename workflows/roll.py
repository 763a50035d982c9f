"""Roll: one artifact onto one environment. The old release serves until the switch, and again if the switch fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure, run_error, stage_of, was_canceled
    from temporal.messages import (
        Ended,
        Failure,
        JobRef,
        Live,
        RollOrder,
        RolloutRef,
        Settle,
        Switch,
        Taken,
        Turn,
        TurnRef,
    )
    from workflows import fleet
    from workflows.bake import bake
    from workflows.cancels import stop_if_canceled, to_the_end

REREAD, LONGEST = timedelta(seconds=5), timedelta(minutes=1)
TIMED_OUT = {"place": "roll.place_failed"}
WAIT_FOR_IT = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


class Rollout:
    """The story that deploy, promote and rollback share: they differ in what was asked, not in what is done."""

    kind = "deploy"

    def __init__(self) -> None:
        self.stage = "place"
        self.turns = 0
        self.undone = False
        self.lost: tuple[str, ...] = ()

    @workflow.signal(name=names.TURN)
    def turn(self) -> None:
        self.turns += 1

    async def carry_out(self, ref: JobRef, artifact_id: str = "") -> Ended:
        """`artifact_id`: what the job itself has built, and its rollout waits for."""
        taken = await self._at_once(ref) if ref.host else None
        if isinstance(taken, Taken):
            workflow.set_current_details(f"**record** · `{taken.rollout_id}` is live on {ref.host}")
            return await to_the_end(asyncio.create_task(self._record(RolloutRef(taken.rollout_id))))
        turn = await self._take_turn(TurnRef(ref.job_id, artifact_id), taken)
        if turn.order is None:
            return Ended(turn.rollout_id, turn.status)
        try:
            if taken is not None:
                raise taken
            stop_if_canceled()
            return await self._roll(turn.order)
        except fleet.PutBack as error:
            self.undone, self.lost = len(turn.order.hosts) > 1, error.lost
            return await self._fail(turn.order, error.why)
        except (FailureError, asyncio.CancelledError) as error:
            return await self._fail(turn.order, error)

    async def _at_once(self, ref: JobRef) -> Taken | BaseException | None:
        """Its only host may have it without being told by way of the rows; or its verdict, or None: it was not to be.

        Whatever became of it, turn and rollout have the same rows and numbers, so that the longer way goes on from it.
        """
        workflow.set_current_details(f"**place** · on {ref.host}, if it is its turn")
        try:
            taken = await workflow.execute_activity(
                act.take,
                ref,
                task_queue=names.placing_queue(ref.host, self.kind),
                summary=f"take it up on {ref.host}",
                cancellation_type=WAIT_FOR_IT,
                **policies.TAKE,
            )
        except (FailureError, asyncio.CancelledError) as error:
            return error if is_verdict(error) else None
        return taken if taken.live is not None else None

    async def _fail(self, order: RollOrder, error: BaseException) -> Ended:
        timed_out = TIMED_OUT.get(self.stage, "roll.timeout")
        failure = describe_failure(order.rollout_id, self.stage, error, on_timeout=timed_out)
        return await self._end(order, replace(failure, stage=stage_of(failure)), error)

    async def _take_turn(self, ref: TurnRef, verdict: BaseException | None = None) -> Turn:
        """The queue is rows: look whenever told, and now and then without being told.

        A `verdict` that was a cancel ends what is not running.
        """
        pause = REREAD
        while True:
            seen = self.turns
            turn = await to_the_end(
                workflow.start_local_activity(act.claim_turn, ref, summary="my turn?", **policies.RECORD)
            )
            if turn.status not in ("queued", "waiting", "held"):
                return turn
            waits = f"is held: {turn.reason}" if turn.status == "held" else "waits for its turn"
            workflow.set_current_details(f"**queue** · `{turn.rollout_id}` {waits}")
            try:
                if verdict is not None and was_canceled(verdict):
                    raise asyncio.CancelledError
                stop_if_canceled()
                await workflow.wait_condition(lambda seen=seen: self.turns > seen, timeout=pause)  # type: ignore[misc]
            except TimeoutError:
                pause = min(2 * pause, LONGEST)
            except asyncio.CancelledError:
                job = JobRef(ref.job_id)
                await workflow.execute_activity(act.request_cancel, job, summary="end the row", **policies.RECORD)
                raise

    async def _roll(self, order: RollOrder) -> Ended:
        """On one host everything up to the switch is one activity; several are ready before the first one switches."""
        if len(order.hosts) == 1:
            self._tell("place", order)
            lives = [await self._on(order.hosts[0], order)]
        else:
            self._tell("place", order)
            ready = await fleet.prepare(order)
            lives = await to_the_end(asyncio.create_task(self._commit(order, ready)))
        if order.bake_seconds:
            lives = await self._bake(order, lives)
        return await to_the_end(asyncio.create_task(self._finish(order, lives)))

    async def _on(self, host: str, order: RollOrder) -> Live:
        return await workflow.execute_activity(
            act.roll,
            order,
            task_queue=names.placing_queue(host, order.kind),
            summary=f"place on {host}, switch to {order.apply_seq}",
            cancellation_type=WAIT_FOR_IT,
            **policies.PLACE,
        )

    async def _commit(self, order: RollOrder, hosts: Sequence[str]) -> list[Live]:
        # The gate and the cancel flag are one transaction: from here on a cancel answers 409.
        ref = RolloutRef(order.rollout_id)
        await workflow.execute_local_activity(act.commit, ref, summary="point of no return", **policies.RECORD)
        self._tell("switch", order)
        return await fleet.switch(order, hosts, lambda host: self._switch_on(host, order))

    async def _bake(self, order: RollOrder, lives: list[Live]) -> list[Live]:
        """Live, and watched: it counts once it has done well for so long. Else, and on a cancel, it goes."""
        self._tell("bake", order)
        try:
            return await bake(order, lives)
        except (FailureError, asyncio.CancelledError):
            hosts = [live.host_id for live in lives]
            undone = await to_the_end(asyncio.create_task(fleet.put_back(order, hosts, lives)))
            self.undone, self.lost = True, fleet.missing(hosts, undone)
            raise

    async def _finish(self, order: RollOrder, lives: Sequence[Live]) -> Ended:
        self._tell("record", order)
        return await self._record(RolloutRef(order.rollout_id, fleet.missing(order.hosts, lives)))

    async def _record(self, ref: RolloutRef) -> Ended:
        return await workflow.execute_local_activity(
            act.record_release, ref, summary="append release", **policies.RECORD
        )

    async def _switch_on(self, host: str, order: RollOrder) -> Live:
        return await workflow.execute_activity(
            act.switch,
            Switch(order.rollout_id, order.env_id, order.apply_seq),
            task_queue=names.host_queue(host),
            summary=f"switch {host} to {order.apply_seq}",
            **fleet.switching(order),
        )

    async def _end(self, order: RollOrder, failure: Failure, error: BaseException) -> Ended:
        """Not live: the row ends as failed. Past the point of no return only the hosts can say what is."""
        failure = replace(failure, undone=self.undone or len(order.hosts) != 1, away=self.lost)
        ended = await to_the_end(
            workflow.start_activity(
                act.fail_rollout, failure, summary=f"{failure.code} in {failure.stage}", **policies.RECORD
            )
        )
        if ended.status == "committed":
            ended = await to_the_end(asyncio.create_task(self._past_the_gate(order, failure)))
        if ended.status == "succeeded":
            return ended
        await self._leave(order)
        raise run_error(failure) from error

    async def _past_the_gate(self, order: RollOrder, failure: Failure) -> Ended:
        """From there on a cancel is refused, also one from the Temporal UI: what was to be switched to is."""
        if failure.canceled or workflow.cancellation_reason() is not None:
            try:
                await self._on(order.hosts[0], order)  # it may not have been placed yet
            except FailureError as error:
                failure = describe_failure(order.rollout_id, "switch", error, on_timeout="roll.timeout")
        return await settle(order, failure)

    async def _leave(self, order: RollOrder) -> None:
        """What was begun on the hosts is let go of; one that is away does so by itself at its next rollout."""
        left = (fence(order, host, policies.ASK) for host in order.hosts if host not in self.lost)
        await asyncio.gather(*left, return_exceptions=True)

    def _tell(self, stage: str, order: RollOrder) -> None:
        self.stage = stage
        workflow.set_current_details(f"**{stage}** · {order.kind} `{order.rollout_id}` as number {order.apply_seq}")


async def settle(order: RollOrder, failure: Failure | None = None, policy: policies.Policy = policies.SWITCH) -> Ended:
    """Ask every host what is live, behind a fence that no late worker passes; then end the row by that."""
    if len(order.hosts) > 1:
        return await fleet.settle(order, failure)
    lives = [await fence(order, host, policy) for host in order.hosts]
    request = Settle(order.rollout_id, tuple(lives), failure)
    return await workflow.execute_activity(act.settle, request, summary="end by what is live", **policies.RECORD)


async def fence(order: RollOrder, host: str, policy: policies.Policy) -> Live:
    return await workflow.execute_activity(
        act.fence,
        Switch(order.rollout_id, order.env_id, order.undo_seq),
        task_queue=names.host_queue(host),
        summary=f"what does {host} serve?",
        **policy,
    )


def is_verdict(error: BaseException) -> bool:
    """Whether another try comes to the same: it was canceled, or what was found is the artifact's own."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return was_canceled(error) or (isinstance(cause, ApplicationError) and cause.non_retryable)


@workflow.defn(name=names.ROLL)
class Roll(Rollout):
    """Queue `control`; id: the job's."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)
