"""Bad input: every answer is the envelope, with a code and the field to blame, and never a 422 or a 500."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from store.models import ApiKey
from store.session import Store
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "request.missing_parameter", "name"),
        ({"name": 7}, "request.invalid_parameter", "name"),
        ({"name": ""}, "request.invalid_parameter", "name"),
        ({"name": "   "}, "request.invalid_parameter", "name"),
        ({"name": "x" * 101}, "request.invalid_parameter", "name"),
        ({"name": None}, "request.invalid_parameter", "name"),
        ({"name": "x", "colour": "red"}, "request.unknown_parameter", "colour"),
        ({"name": "x", "runtime": "cobol"}, "request.invalid_parameter", "runtime"),
        ({"name": "x", "project_id": "no id"}, "request.invalid_parameter", "project_id"),
        ({"name": "x", "default_branch": "a..b"}, "ref.invalid", "default_branch"),
        ({"name": "x", "repository": "http://example.com/a"}, "repository.invalid", "repository"),
        ({"name": "x", "repository": "https://u:p@example.com/a"}, "repository.invalid", "repository"),
        ({"name": "x", "repository": "https://127.0.0.1/a.git"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "https://localhost/a.git"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "https://0x7f000001/a.git"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "https://2130706433/a.git"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "https://[::1]/a.git"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "https://[::ffff:10.0.0.1]/a"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "ssh://git@169.254.169.254/a"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "file:///etc"}, "repository.not_allowed", "repository"),
        ({"name": "x", "repository": "ext::sh -c id"}, "repository.invalid", "repository"),
        ({"name": "x", "repository": "--upload-pack=x"}, "repository.invalid", "repository"),
        ({"name": "x", "runtime": "wordpress"}, "environment.capability_unsupported", None),
    ],
)
async def test_a_bad_site_is_refused_with_the_field_to_blame(
    api: World, body: dict[str, Any], code: str, param: str | None
) -> None:
    refused = error(await api.admin.post("/v1/sites", json=body), 409 if code.startswith("environment") else 400)
    assert refused["code"] == code
    assert refused.get("param") == param


@pytest.mark.parametrize(
    "raw",
    [
        *(b"{", b"[]", b'"x"', b"null", b"7", b'{"name": NaN}', b"\xff\xfe{}", b'{"name": "\\u0000"}'),
        *(b'{"name": "\\ud800"}', b"[" * 100_000, b'{"name": ' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"name":"x"}'),
    ],
)
async def test_what_is_no_json_object_is_malformed(api: World, raw: bytes) -> None:
    refused = error(await api.admin.post("/v1/sites", content=raw, headers=JSON), 400)
    assert refused["code"] == "request.malformed_json"


async def test_a_coded_body_is_no_json(api: World) -> None:
    coded = {**JSON, "content-encoding": "gzip"}
    refused = error(await api.admin.post("/v1/sites", content=gzip.compress(b'{"name": "x"}'), headers=coded), 415)
    assert refused["code"] == "request.unsupported_media_type"
    plain = {**JSON, "content-encoding": "identity"}
    assert (await api.admin.post("/v1/sites", content=b'{"name": "x"}', headers=plain)).status_code == 202


@pytest.mark.parametrize("name", ["Idempotency-Key", "Forge-Version", "Authorization"])
async def test_a_header_that_stands_twice_is_refused(api: World, name: str) -> None:
    given = [*JSON.items(), (name, "2026-06-23"), (name, "2026-06-23")]
    if name != "Authorization":
        given.append(("Authorization", api.admin.headers["Authorization"]))
    refused = error(await api.client(None).post("/v1/sites", content=b'{"name": "x"}', headers=given), 400)
    assert (refused["code"], refused["param"]) == ("request.invalid_parameter", name)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"name": "one", "name": "two"}', "name"),
        (b'{"name": "one", "n\\u0061me": "one"}', "name"),
        (b'{"name": "one", "x": [{"y": 1, "y": 1}]}', "y"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "\\ud800"),
    ],
)
async def test_a_name_that_stands_twice_is_refused(api: World, raw: bytes, param: str) -> None:
    refused = error(await api.admin.post("/v1/sites", content=raw, headers=JSON), 400)
    assert (refused["code"], refused["param"]) == ("request.invalid_parameter", param)


async def test_an_empty_body_is_fine_where_nothing_is_required(api: World) -> None:
    for headers in ({}, JSON):
        refused = error(await api.admin.post("/v1/sites", content=b"", headers=headers), 400)
        assert refused["code"] == "request.missing_parameter"
        assert refused["message"] == "The body is empty: send a JSON object."
        assert "param" not in refused
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds"
    for content, headers in ((b"", {}), (b"", JSON), (b"{}", JSON)):
        assert (await api.admin.post(path, content=content, headers=headers)).status_code == 202


async def test_media_types_methods_and_routes(api: World) -> None:
    text = await api.admin.post("/v1/sites", content=b'{"name":"x"}', headers={"content-type": "text/plain"})
    assert error(text, 415)["code"] == "request.unsupported_media_type"
    none = await api.admin.post("/v1/sites", content=b'{"name":"x"}')
    assert error(none, 415)["code"] == "request.unsupported_media_type"
    wrong = await api.admin.put("/v1/sites", json={})
    assert error(wrong, 405)["code"] == "request.method_not_allowed"
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    assert (await api.admin.request("BREW", "/v1/sites/site_0000")).headers["allow"] == "DELETE, GET, HEAD, PATCH"
    for path in ("/v1/nothing", "/v1", "/nothing", "/v1/sites/", "/v1/sites/a/b/c/d/e"):
        assert error(await api.admin.get(path), 404)["code"] == "route.not_found"


async def test_large_bodies_are_refused_before_they_are_read(api: World) -> None:
    announced = await api.admin.post("/v1/sites", content=b"x" * (2 << 20), headers=JSON)
    assert error(announced, 413)["code"] == "request.too_large"
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 16
            yield b" " * (1 << 16)

    streamed = await api.admin.post("/v1/sites", content=endless(), headers=JSON)
    assert error(streamed, 413)["code"] == "request.too_large"
    assert sent < 4 << 20


async def test_a_body_of_exactly_one_mebibyte_is_read(api: World) -> None:
    body = b'{"name": "big"' + b" " * ((1 << 20) - 15) + b"}"
    assert len(body) == 1 << 20
    assert (await api.admin.post("/v1/sites", content=body, headers=JSON)).status_code == 202


async def test_nothing_is_done_with_a_body_that_did_not_come(api: World) -> None:
    """Of `{"grace_period": "24h"}` no byte: an empty body would end the old secret by another rule."""
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["sites:read"]}))
    before = api.one(ApiKey, id=made["id"]).secret_sha256
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    secret = (api.folder / "admin.key").read_text().strip()
    headers = {"host": "api.test", "authorization": f"Bearer {secret}", "content-length": "23", **JSON}
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/v1/api-keys/{made['id']}/roll",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 4000),
    }
    await api.app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b"request.malformed" in sent[1]["body"]
    assert api.one(ApiKey, id=made["id"]).secret_sha256 == before


async def test_ids_of_any_shape_are_not_found(api: World) -> None:
    site = await api.site(api.admin)
    for odd in ("x", "site_", "%2e%2e", "a" * 5000, "site_1'--", "%F0%9F%92%A9", "site_01KV%0A"):
        assert error(await api.admin.get(f"/v1/sites/{odd}/environments"), 404)["type"] == "not_found"
        path = f"/v1/sites/{site['id']}/environments/{odd}"
        assert error(await api.admin.get(path), 404)["type"] == "not_found"
    assert error(await api.admin.get("/v1/sites/%00"), 404)["code"] == "route.not_found"
    assert error(await api.admin.get("/v1/sites?slug=%00"), 400)["type"] == "invalid_request"


@pytest.mark.parametrize("ref", ["--upload-pack=touch /tmp/x", "-x", "-", " main", "main\n", "a\x1bb", "x" * 256, ""])
async def test_a_ref_that_is_an_option_is_refused(api: World, ref: str) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds"
    refused = error(await api.admin.post(path, json={"ref": ref}), 400)
    assert refused["param"] == "ref"
    pushed = await api.admin.post(f"/v1/sites/{site['id']}/deployments", json={"ref": ref})
    assert error(pushed, 400)["param"] == "ref"


@pytest.mark.parametrize("ref", ["main", "v1.2^{commit}", "HEAD~3", ":/fix the bug", "main@{yesterday}", "ünïcode"])
async def test_whatever_rev_parse_takes_is_taken(api: World, ref: str) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds"
    assert data(await api.admin.post(path, json={"ref": ref}))["resource"]["ref"] == ref


async def test_repositories_below_an_allowed_folder_are_local_ones(tmp_path: Path) -> None:
    from tests.api.world import world

    allowed, outside = tmp_path / "repos", tmp_path / "outside"
    (allowed / "one.git").mkdir(parents=True)
    outside.mkdir()
    (allowed / "link").symlink_to(outside)
    async with world(tmp_path, local=(allowed,)) as api:
        site = await api.site(api.admin, repository=f"file://{allowed}/one.git")
        assert site["repository"] == f"file://{allowed}/one.git"
        for path in (f"{allowed}/../outside", f"{allowed}/link", str(tmp_path)):
            body = {"name": "x", "repository": f"file://{path}"}
            assert error(await api.admin.post("/v1/sites", json=body), 400)["code"] == "repository.not_allowed"


async def test_scp_addresses_become_ssh(api: World) -> None:
    site = await api.site(api.admin, repository="git@example.com:team/site.git")
    assert site["repository"] == "ssh://git@example.com/team/site.git"


async def test_credentials_versions_and_request_ids(api: World) -> None:
    anonymous = api.client(None)
    assert error(await anonymous.get("/v1/sites"), 401)["code"] == "auth.missing"
    assert error(await anonymous.get("/v1/no-such-path"), 401)["code"] == "auth.missing"
    for key in ("mfk_test_" + "a" * 43, "mfk_live_" + "a" * 43, "mfs_live_x", "Basic", "msk_x", "mfk_live_\u00e9"):
        refused = await anonymous.get("/v1/sites", headers={"Authorization": f"Bearer {key}".encode("latin-1")})
        assert error(refused, 401)["code"] == "auth.invalid_key"
    basic = await anonymous.get("/v1/sites", headers={"Authorization": "Basic abc"})
    assert error(basic, 401)["code"] == "auth.missing"
    answered = await api.admin.get("/v1/sites", headers={"Forge-Version": "2026-06-23"})
    assert answered.headers["forge-version"] == "2026-06-23"
    assert answered.json()["request_id"] == answered.headers["x-request-id"]
    for version in ("2020-01-01", "today", ""):
        refused = await api.admin.get("/v1/sites", headers={"Forge-Version": version})
        assert error(refused, 400)["param"] == "Forge-Version"


async def test_a_database_that_is_away_is_503_and_a_bug_is_500_without_its_words(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_self: Store) -> Any:
        raise OperationalError("SELECT secret_sha256", {}, Exception("disk I/O error at /srv/secret"))

    def bug(_self: Store) -> Any:
        raise RuntimeError("secret detail")

    await api.admin.get("/v1/sites")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "read", away)
        refused = await api.admin.get("/v1/sites")
        assert error(refused, 503)["code"] == "service.unavailable"
        assert "secret" not in refused.text
    with monkeypatch.context() as patched:
        patched.setattr(Store, "read", bug)
        failed = await api.admin.get("/v1/sites")
        assert error(failed, 500)["code"] == "internal.error"
        assert "secret" not in failed.text


async def test_what_a_static_site_cannot_do_is_a_conflict(api: World) -> None:
    site = await api.site(api.admin)
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    for path in (f"{env}/cron", f"{env}/database", f"{env}/components/plugins", f"{env}/email"):
        assert error(await api.admin.get(path), 409)["code"] == "environment.capability_unsupported"
    for path in (f"{env}/clone-content", f"{env}/refresh", f"{env}/reset", f"/v1/sites/{site['id']}/dns/records"):
        assert error(await api.admin.post(path, json={"x": 1}), 409)["code"] == "environment.capability_unsupported"
    capable = data(await api.admin.get(f"/v1/sites/{site['id']}/capabilities"))["capabilities"]
    assert capable["build"]["supported"] is True
    assert capable["cron"] == {"supported": False}


async def test_sixteen_writers_meet_no_locked_database(api: World) -> None:
    site = await api.site(api.admin)
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"

    async def write(number: int) -> list[int]:
        found = []
        for turn in range(6):
            key = {"Idempotency-Key": f"{number}-{turn}"}
            answers = [
                await api.admin.post(f"{env}/builds", json={"ref": "main"}, headers=key),
                await api.admin.patch(f"/v1/sites/{site['id']}", json={"name": f"n{number}"}),
                await api.admin.post(f"/v1/sites/{site['id']}/deployments", json={"ref": "main"}),
            ]
            found += [answer.status_code for answer in answers]
        return found

    statuses = [status for found in await asyncio.gather(*map(write, range(16))) for status in found]
    assert sorted(set(statuses)) == [200, 202]
    assert len(statuses) == 16 * 18


async def test_head_is_told_what_get_would_be_without_a_body(api: World) -> None:
    job = data(await api.admin.post("/v1/sites", json={"name": "x"}))
    for path in (
        f"/v1/jobs/{job['id']}",
        "/v1/sites?limit=1",
        "/v1/sites?limit=0",
        "/v1/nothing",
        "/v1/api-keys/key_0000",
    ):
        get, head = await api.admin.get(path), await api.admin.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        for name in ("content-type", "content-length", "etag", "forge-version"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)
    unchanged = await api.admin.head(f"/v1/jobs/{job['id']}", headers={"If-None-Match": "*"})
    assert unchanged.status_code == 304
    stream = await asyncio.wait_for(api.admin.head(f"/v1/jobs/{job['id']}/stream"), 20)
    assert (stream.status_code, stream.content) == (200, b"")
    assert stream.headers["content-type"].startswith("text/event-stream")
    refused = await api.admin.head(f"/v1/jobs/{job['id']}/cancel")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    wrong = await api.admin.delete("/v1/sites")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("path", ["/v1/sites", "/v1/nothing", "/api/v1/sandboxes"])
async def test_who_is_not_let_in_is_told_how_to_ask(api: World, path: str) -> None:
    for key in (None, "mfk_live_none"):
        answer = await api.client(key).get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_what_is_made_says_where_it_is(api: World) -> None:
    site = await api.site(api.admin)
    for path, body in (
        ("/v1/hosts", {"id": "host.two"}),
        ("/v1/builders", {"id": "two"}),
        ("/v1/api-keys", {"name": "k", "scopes": ["sites:read"]}),
        ("/v1/teams", {"name": "Team"}),
        ("/v1/projects", {"name": "Project"}),
        ("/v1/webhook-endpoints", {"url": "https://receiver.test/x", "events": ["*"]}),
        ("/v1/notifications", {"url": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "events": ["*"]}),
        (f"/v1/sites/{site['id']}/hooks", {"provider": "github"}),
    ):
        for _ in range(2):
            made = await api.admin.post(path, json=body, headers={"Idempotency-Key": path})
            assert (made.status_code, made.headers["location"]) == (201, f"{path}/{data(made)['id']}")
        assert data(await api.admin.get(made.headers["location"]))["id"] == data(made)["id"]
    renewed = await api.admin.post("/v1/hosts/host.two/credential")
    assert (renewed.status_code, "location" in renewed.headers) == (200, False)
