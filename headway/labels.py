"""What an operator reads in the Temporal UI about a run, and which run is to look at its rows again.

Rows make them and messages carry them; neither knows the other, so they stand below both.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Labels:
    """What an operator reads in the Temporal UI; `host`: where the rollout may be taken up at once, if anywhere."""

    site: str = ""
    environment: str = ""
    job_type: str = ""
    commit: str = ""
    digest: str = ""
    host: str = ""


@dataclass(frozen=True)
class Ahead:
    """The first of an environment's queue: the job whose run carries it out."""

    job_id: str
    kind: str
    labels: Labels = field(default_factory=Labels)
