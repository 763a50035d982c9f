"""The activities that workflows name are the activities that the roles offer: by name and by type."""

from __future__ import annotations

import typing

from temporalio import activity

from activities import references
from activities.builds import BuildRecords
from activities.commands import CommandRecords
from activities.domains import DomainRecords
from activities.environments import EnvironmentRecords
from activities.execute import Executor
from activities.host import HostActivities
from activities.looking import Looker
from activities.mending import Mending
from activities.polling import Poller
from activities.produce import Producer
from activities.reconcile import Reconciler
from activities.reports import Reports
from activities.retention import Retention
from activities.rollouts import RolloutRecords
from activities.running import Commands
from activities.scrub import Scrubs
from activities.sign import Signer
from activities.webhooks import Webhooks

ROLES = (
    BuildRecords,
    CommandRecords,
    Commands,
    DomainRecords,
    EnvironmentRecords,
    Executor,
    HostActivities,
    Looker,
    Poller,
    Mending,
    Producer,
    Reconciler,
    Reports,
    Retention,
    RolloutRecords,
    Scrubs,
    Signer,
    Webhooks,
)


def definitions(owner: object) -> dict[str, typing.Any]:
    found = {}
    for value in vars(owner).values():
        definition = getattr(value, "__temporal_activity_definition", None)
        if definition is not None:
            found[activity._Definition.must_from_callable(value).name] = value
    return found


def shape(function: typing.Any) -> tuple[list[typing.Any], typing.Any]:
    hints = typing.get_type_hints(function)
    answer = hints.pop("return")
    return list(hints.values()), answer


def test_every_reference_is_offered_with_the_same_types() -> None:
    offered = {name: value for role in ROLES for name, value in definitions(role).items()}
    wanted = definitions(references)
    assert set(wanted) <= set(offered)
    for name, reference in wanted.items():
        assert shape(offered[name]) == shape(reference), name


def test_every_offered_activity_has_a_summary_in_the_references() -> None:
    extra = {name for role in ROLES for name in definitions(role)} - set(definitions(references))
    assert extra == set()
