"""Workflows in their sandbox, without the questions and the walks that only another converter would need.

For each payload of each step the worker asks the workflow, inside its sandbox, which serialization context belongs to
it; and it walks through every message six times for a codec or an external storage. The converter here is plain JSON
and has none of these: the asking took a third of the control worker's processor time, the walking a sixth of the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.bridge import worker as bridge
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import DataConverter, StorageDriverStoreContext
from temporalio.converter._extstore import StorageOperationMetrics
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info

Walk = Callable[..., Awaitable[StorageOperationMetrics]]


class PlainRunner(SandboxedWorkflowRunner):
    """For clients whose data converter has neither a codec nor external storage."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Plain(super().create_instance(det))


class _Plain(WorkflowInstance):
    def __init__(self, sandboxed: WorkflowInstance) -> None:
        self._sandboxed = sandboxed

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        return self._sandboxed.activate(act)

    def get_serialization_context(self, _command_info: Any) -> None:
        return None

    def get_external_store_context(self, _command_info: Any) -> StorageDriverStoreContext:
        return StorageDriverStoreContext(target=None)

    def get_info(self) -> Info:
        return self._sandboxed.get_info()

    def get_thread_id(self) -> int | None:
        return self._sandboxed.get_thread_id()


def _only_with_effect(walk: Walk) -> Walk:
    """`walk`, for converters that change anything on it."""

    async def walked(message: Any, data_converter: DataConverter, *args: Any, **kwargs: Any) -> StorageOperationMetrics:
        if data_converter.payload_codec is None and data_converter.external_storage is None:
            return StorageOperationMetrics()
        return await walk(message, data_converter, *args, **kwargs)

    return walked


# The library looks them up here for each step; it has no other place for it.
bridge.decode_activation = _only_with_effect(bridge.decode_activation)  # type: ignore[assignment]
bridge.encode_completion = _only_with_effect(bridge.encode_completion)  # type: ignore[assignment]
