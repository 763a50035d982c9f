"""The client's public methods as one list, and a client that remembers which of them were called."""

from __future__ import annotations

import functools
import http.client
import inspect
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from miosa import AsyncMiosa, Miosa
from miosa.resources import (
    api_keys,
    deployments,
    environments,
    event_subscriptions,
    flat_custom_domains,
    governance,
    operations,
    projects,
    sandboxes,
    tenant_events,
    tokens,
    webhooks,
)

from bench.stack import Stack

# What the client calls, and the classes that do it.
RESOURCES: Final = {
    "deployments": deployments.Deployments,
    "deployments.versions": deployments.DeploymentVersions,
    "deployments.releases": deployments.DeploymentReleases,
    "deployments.domains": deployments.DeploymentDomains,
    "deployments.runtime_instances": deployments.DeploymentRuntimeInstances,
    "projects": projects.Projects,
    "workspaces": governance.GovernanceWorkspaces,
    "deployment_environments": environments.DeploymentEnvironments,
    "api_keys": api_keys.ApiKeys,
    "tokens": tokens.Tokens,
    "events": tenant_events.TenantEvents,
    "operations": operations.Operations,
    "webhooks": webhooks.Webhooks,
    "event_subscriptions": event_subscriptions.EventSubscriptions,
    "custom_domains": flat_custom_domains.FlatCustomDomains,
    "sandboxes": sandboxes.Sandboxes,
}
# Of a sandbox, what a client that publishes needs.
SANDBOX: Final = (
    *("refresh", "readiness", "wait_until_ready", "run", "exec_stream", "write_file", "upload", "download"),
    *("read_file", "list_files", "stat_file", "update", "extend", "resume", "deploy", "destroy"),
    *("files.write", "files.write_files", "files.read", "files.list", "files.stat", "files.tree", "exec.run"),
)
# They only lead to other classes, or belong to products of the vendor that this platform has not.
ELSEWHERE: Final = frozenset(
    (
        *("deployments.versions", "deployments.releases", "deployments.runtime_instances"),
        *("deployments.domains", "deployments.connectors"),
        *("workspaces.list_computers", "sandboxes.create_agent_workspace", "sandboxes.browser_cdp_url"),
        # Templates are images of machines there, and sizes theirs.
        *("sandboxes.create_template", "sandboxes.create_template_build", "sandboxes.get_build_spec_schema"),
        *("sandboxes.get_template", "sandboxes.get_template_build", "sandboxes.list_template_builds"),
        *("sandboxes.resize", "sandboxes.resources", "sandboxes.validate_build_spec"),
    )
)


def wanted() -> frozenset[str]:
    """Every method that has to work, by its dotted name."""
    found = {
        f"{name}.{method}"
        for name, cls in RESOURCES.items()
        for method, value in vars(cls).items()
        if not method.startswith("_") and inspect.isfunction(value)
    }
    return frozenset(found - ELSEWHERE | {f"sandbox.{name}" for name in SANDBOX})


class Seen:
    """A part of the client that notes each call; what comes back of the client's own is seen as well."""

    def __init__(self, part: Any, name: str, called: set[str]) -> None:
        self._part, self._name, self._called = part, name, called

    def __getattr__(self, attribute: str) -> Any:
        value, name = getattr(self._part, attribute), f"{self._name}.{attribute}".lstrip(".")
        if name in RESOURCES and not callable(value):
            return Seen(value, name, self._called)
        if f"{self._name}.{attribute}" in ("sandbox.files", "sandbox.exec"):
            return Seen(value, name, self._called)
        if not callable(value):
            return value
        if name == "workspaces":
            return Seen(value, name, self._called)

        @functools.wraps(value)
        def call(*given: Any, **named: Any) -> Any:
            self._called.add(name)
            return self._seen(value(*given, **named), name)

        return call

    def _seen(self, result: Any, name: str) -> Any:
        if name in RESOURCES:
            return Seen(result, name, self._called)
        if isinstance(result, sandboxes.Sandbox | sandboxes.AsyncSandbox):
            return Seen(result, "sandbox", self._called)
        if inspect.iscoroutine(result):
            return self._later(result, name)
        return result

    async def _later(self, result: Any, name: str) -> Any:
        return self._seen(await result, name)


@dataclass
class World:
    """One client, synchronous or not, and what it works on: `do` waits for what has to be waited for."""

    stack: Stack
    client: Any
    facts: Facts
    flavour: str
    called: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, stack: Stack, client: Miosa | AsyncMiosa, facts: Facts) -> World:
        made = cls(stack, client, facts, "async" if isinstance(client, AsyncMiosa) else "sync")
        made.client = Seen(client, "", made.called)
        return made

    async def do(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def all(self, value: Any, most: int = 1_000) -> list[Any]:
        """The items of an iterator of either kind."""
        value = await self.do(value)
        found = []
        if hasattr(value, "__aiter__"):
            async for one in value:
                found.append(one)
                if len(found) == most:
                    break
        else:
            for one in value:
                found.append(one)
                if len(found) == most:
                    break
        return found

    def page(self, url: str | None, path: str = "/") -> tuple[int, str]:
        return fetch(self.stack, url, path)


@dataclass(frozen=True)
class Facts:
    """What every case may use, and none may change: a site of two versions, and an app that runs."""

    sandbox: str
    site: str
    site_url: str
    versions: tuple[str, str]
    app: str
    app_url: str
    app_version: str
    operation: str


def fetch(stack: Stack, url: str | None, path: str = "/") -> tuple[int, str]:
    """One GET at 127.0.0.1 with the address's Host: `*.localhost` need not resolve."""
    assert url is not None
    connection = http.client.HTTPConnection("127.0.0.1", stack.sites_port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": urlsplit(url).hostname or ""})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


APP: Final = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/_health":
            status, text = STATUS, ""
        else:
            status, text = 200, "EDITION " + os.environ.get("GREETING", "")
            print("asked for", self.path, flush=True)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

print("edition EDITION", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def app(edition: str, status: int = 200) -> str:
    return APP.replace("EDITION", edition).replace("STATUS", str(status))


def prepare(stack: Stack) -> Facts:
    """With the synchronous client."""
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as client:
        sandbox = client.sandboxes.create(name="surface")
        sandbox.files.write("/workspace/index.html", "one")
        made = client.deployments.create(name="Surface", external_user_id="user_7")
        first = client.deployments.publish(made.id, source_sandbox_id=sandbox.id)
        sandbox.files.write("/workspace/index.html", "two")
        second = client.deployments.publish(made.id, source_sandbox_id=sandbox.id)
        assert second.promoted, second
        running = client.sandboxes.create(name="surface-app")
        running.files.write("/workspace/app.py", app("first"))
        live = running.deploy(
            name="Surface app", run_command="exec python3 app.py", port=8000, health_check_path="/_health"
        )
        assert live["promoted"], live["version"]
        operation = str((second.model_extra or {})["operation_id"])
        return Facts(
            sandbox=sandbox.id,
            site=made.id,
            site_url=str(second.deployment.public_url),
            versions=(first.version.id, second.version.id),
            app=live["deployment_id"],
            app_url=live["public_url"],
            app_version=live["version_id"],
            operation=operation,
        )
