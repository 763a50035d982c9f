"""The client's nouns of who may do what: keys, teams, members, projects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headway.nouns import Json, Noun, given
from headway.resources import Key, Member, Project, Team


class Keys(Noun):
    def create(
        self, name: str, scopes: Sequence[str] | str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Key:
        """`scopes` are literal, or one name of a preset. Further fields: contract section 3.6."""
        body = {"name": name, "scopes": scopes if isinstance(scopes, str) else [*scopes], **given(**fields)}
        return Key.model_validate(self._t.post("/v1/api-keys", body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Key]:
        return self._list(Key, "/v1/api-keys", limit)

    def get(self, key_id: str) -> Key:
        return Key.model_validate(self._t.get(f"/v1/api-keys/{key_id}").data)

    def roll(self, key_id: str, *, grace_period: str | None = None, idempotency_key: str | None = None) -> Key:
        body = given(grace_period=grace_period)
        return Key.model_validate(
            self._t.post(f"/v1/api-keys/{key_id}/roll", body, idempotency_key=idempotency_key).data
        )

    def revoke(self, key_id: str) -> Json:
        return dict(self._t.delete(f"/v1/api-keys/{key_id}").data)


class Teams(Noun):
    def create(self, name: str, *, idempotency_key: str | None = None, **fields: Any) -> Team:
        body = {"name": name, **given(**fields)}
        return Team.model_validate(self._t.post("/v1/teams", body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Team]:
        return self._list(Team, "/v1/teams", limit)

    def get(self, team_id: str) -> Team:
        return Team.model_validate(self._t.get(f"/v1/teams/{team_id}").data)


class Members(Noun):
    def add(self, team_id: str, role: str, *, idempotency_key: str | None = None, **fields: Any) -> Member:
        """By `account_id` or `email`; the operator may name a new account with `email` and `name`."""
        body = {"role": role, **given(**fields)}
        path = f"/v1/teams/{team_id}/members"
        return Member.model_validate(self._t.post(path, body, idempotency_key=idempotency_key).data)

    def list(self, team_id: str, *, limit: int | None = None) -> Iterator[Member]:
        return self._list(Member, f"/v1/teams/{team_id}/members", limit)

    def update(self, team_id: str, account_id: str, **fields: Any) -> Member:
        return Member.model_validate(self._t.patch(f"/v1/teams/{team_id}/members/{account_id}", fields).data)

    def remove(self, team_id: str, account_id: str) -> Json:
        return dict(self._t.delete(f"/v1/teams/{team_id}/members/{account_id}").data)


class Projects(Noun):
    def create(self, name: str, *, idempotency_key: str | None = None, **fields: Any) -> Project:
        body = {"name": name, **given(**fields)}
        return Project.model_validate(self._t.post("/v1/projects", body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Project]:
        return self._list(Project, "/v1/projects", limit)

    def get(self, project_id: str) -> Project:
        return Project.model_validate(self._t.get(f"/v1/projects/{project_id}").data)
