"""Policies as documents: what each rule refuses or holds, and what no document may say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headway.errors import HeadwayError
from headway.policy import Facts, Given, Provenance, Ruled, Verdict, digest_of, judge, parse_policy

NOW = datetime(2026, 7, 3, 15, 0, tzinfo=UTC)  # a Friday
BUILDER, REPOSITORY = "urn:headway:builder:v1", "https://git.example.org/shop.git"
FACTS = Facts(
    kind="deploy",
    provenance=(Provenance(BUILDER, REPOSITORY, "main"),),
    origin=frozenset(),
    built_at=NOW - timedelta(hours=1),
    actor=frozenset({"key_1", "acc_ada", "ada@example.org", "api_key"}),
    authors=frozenset({"acc_ada"}),
)


def said(
    document: dict[str, Any], facts: Facts = FACTS, now: datetime = NOW, oldest: datetime | None = None
) -> Verdict:
    return judge([Ruled("pol_1", parse_policy(document), oldest)], facts, now)


def rules(document: dict[str, Any], facts: Facts = FACTS, **more: Any) -> tuple[list[str], list[str]]:
    verdict = said(document, facts, **more)
    return [one.rule for one in verdict.refused], [one.rule for one in verdict.held]


def of_ref(ref: str, **more: Any) -> Facts:
    return replace(FACTS, provenance=(Provenance(BUILDER, REPOSITORY, ref),), **more)


def approved(*accounts: str, ago: float = 60) -> tuple[Given, ...]:
    return tuple(
        Given(one, frozenset({one, f"{one[4:]}@example.org"}), NOW - timedelta(seconds=ago)) for one in accounts
    )


def test_an_empty_document_allows_everything() -> None:
    assert rules({}) == ([], [])


@pytest.mark.parametrize(
    ("document", "refused"),
    [
        ({"builders": [BUILDER]}, []),
        ({"builders": ["urn:other:*"]}, ["builders"]),
        ({"repositories": ["https://git.example.org/*"]}, []),
        ({"repositories": ["https://git.example.org"]}, ["repositories"]),
        ({"repositories": ["snapshot:*"]}, ["repositories"]),
        ({"refs": ["release/*", "main"]}, []),
        ({"refs": ["MAIN"]}, ["refs"]),
        ({"refs": []}, ["refs"]),
        ({"actors": ["ada@example.org"]}, []),
        ({"actors": ["key_1"]}, []),
        ({"actors": ["acc_bob"]}, ["actors"]),
        ({"actors": []}, ["actors"]),
        ({"promote_from": ["staging"]}, ["promote_from"]),
    ],
)
def test_what_a_rule_refuses(document: dict[str, Any], refused: list[str]) -> None:
    assert rules(document) == (refused, [])


@pytest.mark.parametrize(
    ("ref", "allowed"),
    [("main", True), ("refs/heads/main", True), ("refs/tags/main", False), ("main~1", False), ("feature/main", False)],
)
def test_only_the_branch_itself_is_the_branch(ref: str, allowed: bool) -> None:
    assert rules({"refs": ["main"]}, of_ref(ref)) == ([] if allowed else ["refs"], [])


def test_main_or_by_promote_from_staging() -> None:
    document = {"refs": ["main"], "promote_from": ["staging"]}
    other = of_ref("next")
    assert rules(document) == ([], [])
    assert rules(document, other) == (["refs"], [])
    assert rules(document, replace(other, kind="promote", origin=frozenset({"staging"}))) == ([], [])
    assert rules(document, replace(other, kind="promote", origin=frozenset({"preview", "next"}))) == (["refs"], [])
    # Back to what came by promote: the origin is that of the release it goes back to.
    assert rules(document, replace(other, kind="rollback", origin=frozenset({"staging"}))) == ([], [])


def test_one_whole_record_has_to_do_and_none_is_no_record() -> None:
    document = {"repositories": [REPOSITORY], "refs": ["main"]}
    parts = (Provenance(BUILDER, "snapshot:sbx_1", "main"), Provenance(BUILDER, REPOSITORY, "next"))
    assert len(rules(document, replace(FACTS, provenance=parts))[0]) == 1
    assert rules(document, replace(FACTS, provenance=(*parts, FACTS.provenance[0]))) == ([], [])
    assert rules(document, replace(FACTS, provenance=())) == (["builders"], [])


def test_nothing_older_than_the_minimum_release_not_even_back() -> None:
    document = {"minimum_release": "rel_1"}
    for kind in ("deploy", "promote", "rollback"):
        facts = replace(FACTS, kind=kind)
        assert rules(document, facts, oldest=FACTS.built_at + timedelta(seconds=1)) == (["minimum_release"], [])
        assert rules(document, facts, oldest=FACTS.built_at) == ([], [])


def test_approvals_count_persons_not_the_author_and_end() -> None:
    document = {"approvals": {"needed": 2, "accounts": ["acc_ada", "bob@example.org", "acc_eve"], "expire_after": 3600}}

    def held(*given: Given) -> list[str]:
        return rules(document, replace(FACTS, approvals=given))[1]

    assert held() == ["approvals"]
    assert held(*approved("acc_bob")) == ["approvals"]
    assert held(*approved("acc_bob", "acc_bob")) == ["approvals"]
    assert held(*approved("acc_bob", "acc_ada")) == ["approvals"]
    assert held(*approved("acc_bob", "acc_mallory")) == ["approvals"]
    assert held(*approved("acc_bob"), *approved("acc_eve", ago=3600)) == ["approvals"]
    assert held(*approved("acc_bob", "acc_eve")) == []
    assert said(document, replace(FACTS, approvals=approved("acc_bob", "acc_eve"))).approved_by == (
        "acc_bob",
        "acc_eve",
    )
    document["approvals"]["author"] = True  # type: ignore[index]
    assert held(*approved("acc_bob", "acc_ada")) == []


def test_a_rollback_is_held_only_where_the_policy_says_so() -> None:
    document: dict[str, Any] = {
        "approvals": {"needed": 1, "accounts": ["acc_bob"]},
        "freezes": [{"start": "2026-07-01T00:00:00Z", "end": "2026-08-01T00:00:00Z"}],
    }
    back = replace(FACTS, kind="rollback", pinned="")
    assert rules(document, back) == ([], [])
    assert rules(document, replace(back, kind="deploy")) == ([], ["freeze", "approvals", "pin"])
    assert rules({**document, "hold_rollbacks": True}, back) == ([], ["freeze", "approvals"])


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-07-03T13:59:59+00:00", None),
        ("2026-07-03T14:00:00+00:00", "2026-07-03T22:00:00Z"),
        ("2026-07-03T21:59:00+00:00", "2026-07-03T22:00:00Z"),
        ("2026-07-03T22:00:00+00:00", None),
        ("2026-01-02T15:00:00+00:00", "2026-01-02T23:00:00Z"),
        ("2026-07-02T15:00:00+00:00", None),
    ],
)
def test_a_weekly_freeze_follows_the_clock_of_its_zone(now: str, until: str | None) -> None:
    document = {"weekly_freezes": [{"days": ["fri"], "start": "16:00", "zone": "Europe/Berlin", "reason": "weekend"}]}
    held = said(document, now=datetime.fromisoformat(now)).held
    assert [one.as_dict().get("until") for one in held] == ([until] if until else [])
    assert all("weekend" in one.message for one in held)


def test_every_policy_holds() -> None:
    policies = [Ruled("pol_1", parse_policy({"refs": ["*"]})), Ruled("pol_2", parse_policy({"refs": ["live"]}))]
    assert [one.policy_id for one in judge(policies, FACTS, NOW).refused] == ["pol_2"]


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"ref": ["main"]}, "ref"),
        ({"refs": "main"}, "refs"),
        ({"refs": [""]}, "refs.0"),
        ({"approvals": {"needed": 2, "accounts": ["acc_a", "acc_a"]}}, "approvals"),
        ({"approvals": {"needed": 0, "accounts": ["acc_a"]}}, "approvals.needed"),
        ({"freezes": [{"start": "2026-07-02T00:00:00Z", "end": "2026-07-01T00:00:00Z"}]}, "freezes.0"),
        ({"freezes": [{"start": "2026-07-02T00:00:00", "end": "2026-07-03T00:00:00"}]}, "freezes.0.start"),
        ({"weekly_freezes": [{"days": ["fri"], "zone": "Mars/Olympus"}]}, "weekly_freezes.0.zone"),
        ({"weekly_freezes": [{"days": ["fri"], "zone": "../../etc/passwd"}]}, "weekly_freezes.0.zone"),
        ({"weekly_freezes": [{"days": ["fri"], "start": "22:00", "end": "06:00"}]}, "weekly_freezes.0"),
        ({"weekly_freezes": [{"days": []}]}, "weekly_freezes.0.days"),
    ],
)
def test_what_no_policy_may_say(document: dict[str, Any], param: str) -> None:
    with pytest.raises(HeadwayError) as refused:
        parse_policy(document)
    assert (refused.value.code, refused.value.param) == ("policy.invalid", param)


def test_what_is_stored_is_what_was_given() -> None:
    given = {"refs": ["main"], "hold_rollbacks": False, "freezes": []}
    stored = parse_policy(given).canonical()
    assert stored == {"refs": ["main"]}
    assert parse_policy(stored).canonical() == stored
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
