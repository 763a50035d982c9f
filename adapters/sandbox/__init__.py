"""The build sandbox: bubblewrap under a slot's uid, a seccomp filter, cgroups, and one door to the network."""

from adapters.sandbox.capability import Capability, Report, capabilities
from adapters.sandbox.command import Command, Limit, Limits, Mount, Outcome
from adapters.sandbox.sandbox import Sandbox

__all__ = ["Capability", "Command", "Limit", "Limits", "Mount", "Outcome", "Report", "Sandbox", "capabilities"]
