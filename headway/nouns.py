"""What the nouns of the client have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from headway.errors import HeadwayError
from headway.resources import Job, Resource
from headway.transport import Answer, Transport

R = TypeVar("R", bound=Resource)
Json = dict[str, Any]


def given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def env_path(site_id: str, env_id: str) -> str:
    return f"/v1/sites/{site_id}/environments/{env_id}"


class Noun:
    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def _list(self, kind: type[R], path: str, limit: int | None, **params: Any) -> Iterator[R]:
        return (kind.model_validate(row) for row in self._t.pages(path, limit=limit, **params))

    def _job(self, answer: Answer) -> Job:
        return Job.model_validate(answer.data)

    def _deletion(self, path: str, resource_type: str) -> Job:
        """The job that deletes what lies at `path`; where the answer was lost, the one that a try before has started.

        Raises what the server answers.
        """
        answer = self._t.delete(path)
        if answer.status != 404:
            return self._job(answer)
        resource_id = path.rpartition("/")[2]
        for job in self._list(Job, "/v1/jobs", 100, resource_type=resource_type):
            if job.resource.get("id") == resource_id and job.type.endswith(("delete", "detach")):
                return job
        raise HeadwayError(f"{resource_type}.not_found", f"The {resource_type} {resource_id} is gone.")
