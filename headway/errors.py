"""Every expected failure, once: its code, its kind, its HTTP status and whether a retry can help.

The activity mapper, both dialects' problem renderers, the client and the CLI read this table; nobody
branches on message text. Codes follow contract section 5.3 of the managed dialect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Code:
    """`type` is the managed dialect's (contract section 5.2); `retryable`: the same work, tried again, may succeed."""

    type: str
    status: int
    help: str
    retryable: bool = False


def _invalid(help: str) -> Code:
    return Code("invalid_request", 400, help)


def _conflict(help: str) -> Code:
    return Code("conflict", 409, help)


def _missing(noun: str) -> Code:
    return Code("not_found", 404, f"No such {noun}, or this key may not see it.")


def _fault(help: str, *, retryable: bool = False) -> Code:
    return Code("api_error", 500, help, retryable)


CODES: dict[str, Code] = {
    # requests
    "request.malformed": _invalid("Send a request of HTTP/1.1, with an address and headers that a client makes."),
    "request.malformed_json": _invalid("Send a JSON object."),
    "request.missing_parameter": _invalid("Add the named parameter."),
    "request.invalid_parameter": _invalid("Correct the named parameter."),
    "request.unknown_parameter": _invalid("Remove the named parameter, or correct its spelling."),
    "request.too_large": Code("invalid_request", 413, "Send at most 1 MiB."),
    "request.unsupported_media_type": Code("invalid_request", 415, "Send Content-Type: application/json."),
    "request.method_not_allowed": Code("invalid_request", 405, "Use a method that the Allow header names."),
    "route.not_found": Code("not_found", 404, "There is nothing at this path."),
    "version.invalid": _invalid("Send a known date in Forge-Version, or none."),
    "pagination.invalid_cursor": _invalid("Start the list again without a cursor."),
    "idempotency.key_reused": _invalid("Use a new Idempotency-Key for a different request."),
    "idempotency.in_progress": _conflict("The first request with this key is still running: wait, then retry."),
    # credentials
    "auth.missing": Code("authentication", 401, "Send Authorization: Bearer <key>."),
    "auth.invalid_key": Code("authentication", 401, "Check the key, or make a new one."),
    "auth.expired_key": Code("authentication", 401, "Make or roll a key."),
    "tenant.unresolved": _invalid("Name an organisation that this key is of, or leave X-MIOSA-Tenant out."),
    "auth.revoked_key": Code("authentication", 401, "Make a new key."),
    "scope.insufficient": Code("permission", 403, "Use a key that holds the named scope."),
    "role.insufficient": Code("permission", 403, "Ask an admin of the team for a role that allows this."),
    "key.ip_not_allowed": Code("permission", 403, "Call from an address on the key's allowlist."),
    "key.revoked": _conflict("A revoked key stays so: make a new one."),
    "key.expired": _conflict("Let the key live on first (expires_in), or make a new one."),
    "key.escalation": Code("permission", 403, "A key cannot grant what it does not hold."),
    "rate_limit.exceeded": Code("rate_limit", 429, "Wait for Retry-After seconds.", True),
    "quota.exceeded": Code("quota_exceeded", 402, "Delete something, or raise the quota."),
    # rows
    "account.not_found": _missing("account"),
    "team.not_found": _missing("team"),
    "member.not_found": _missing("member"),
    "project.not_found": _missing("project"),
    "site.not_found": _missing("site"),
    "environment.not_found": _missing("environment"),
    "build.not_found": _missing("build"),
    "build.plan_not_found": Code(
        "not_found", 404, "Wait until the build has ended, or read what its log shows of the plan."
    ),
    "artifact.not_found": _missing("artifact"),
    "artifact.sbom_missing": _missing("bill of materials"),
    "deployment.not_found": _missing("deployment"),
    "release.not_found": _missing("release"),
    "job.not_found": _missing("job"),
    "input.not_found": _missing("input"),
    "workspace.not_found": _missing("workspace"),
    "sandbox.not_found": _missing("sandbox"),
    "file.not_found": _missing("file"),
    "instance.not_found": _missing("instance"),
    "api_key.not_found": _missing("API key"),
    "secret.not_found": _missing("secret"),
    "variable.not_found": _missing("variable"),
    "host.not_found": _missing("host"),
    "webhook_endpoint.not_found": _missing("webhook endpoint"),
    "delivery.not_found": _missing("delivery"),
    "event_subscription.not_found": _missing("event subscription"),
    "ledger.entry_not_found": _missing("ledger entry"),
    "finding.not_found": _missing("finding"),
    "decision.not_found": _missing("policy decision"),
    "site.slug_taken": _conflict("Choose another name: this team has a site of that slug."),
    "project.slug_taken": _conflict("Choose another name: this team has a project of that slug."),
    "team.slug_taken": _conflict("Choose another name: a team of that slug exists."),
    "workspace.name_exists": _conflict("Choose another name: there is a workspace of that name."),
    "workspace.not_empty": _conflict("Move or delete what the workspace holds first."),
    "project.not_empty": _conflict("Move or delete what the project holds first."),
    "member.exists": _conflict("That account is a member already."),
    "team.last_owner": _conflict("A team keeps one owner: transfer it first."),
    "environment.branch_taken": _conflict("Another environment of this site has that branch."),
    "environment.too_many": _conflict("Delete previews that are no longer needed, or raise the limit."),
    "environment.kind_singleton": _conflict("A site has one environment of that kind."),
    "environment.protected": _conflict("Production cannot be deleted: delete the site."),
    "environment.password_refused": _conflict("Protect a preview or staging: production is for everybody."),
    "environment.suspended": _conflict("Resume the environment first."),
    "environment.not_suspended": _conflict("Only a suspended environment is resumed."),
    "environment.not_active": _conflict("Wait until the environment is active."),
    "environment.capability_unsupported": _conflict("This runtime cannot do that: see the site's capabilities."),
    "version.not_ready": _conflict("Wait until the version is ready, or publish again where it has failed."),
    "build.not_succeeded": _conflict("Deploy a build that succeeded."),
    "artifact.signature_invalid": _conflict("Build again: this artifact is not what the platform signed."),
    "artifact.site_mismatch": _conflict("Deploy an artifact of this site."),
    "artifact.collected": Code("conflict", 410, "Build again: this artifact has been collected."),
    "release.no_previous": _conflict("There is no earlier release to go back to."),
    "input.not_whole": _conflict("Send what is missing, from `received` on, and its end: `end=true`."),
    "input.ended": _conflict("Run the command with it, or begin another input."),
    "input.too_large": Code("invalid_request", 413, "Send less, or ask the operator to raise the limit."),
    "input.too_many": _conflict("Run the commands that they are for, or wait until they are forgotten."),
    "release.none": _conflict("Nothing runs on that environment yet."),
    "release.already_current": _conflict("That release is the current one."),
    "deployment.in_progress": _conflict("Wait for that deployment, or cancel its job."),
    "job.not_cancelable": _conflict("The job is past the point where it can be canceled, or has ended."),
    # policy
    "policy.invalid": _invalid("Correct what the message names in the policy."),
    "policy.refused": _conflict("Deploy what the policy allows, or have the policy changed: `headway policy get`."),
    "approval.not_named": Code("permission", 403, "Ask one of the accounts that the policy names."),
    "approval.not_held": _conflict("Only a deployment that is held is approved or let through."),
    # configuration
    "config.kind_taken": _conflict("A name is a variable or a secret: unset the one before setting the other."),
    "config.unreadable": _fault("Put the configuration key that the message names back, or set the value again."),
    "host.key_changed": _conflict("Compare the host's key, then accept it with `headway hosts accept`."),
    "host.exists": _conflict("Choose another id, or remove that host first."),
    "host.in_use": _conflict("Let its environments go elsewhere first: `headway env set --host-label`."),
    "host.none_fits": _conflict("Give a host these labels with `headway hosts labels`, or choose others."),
    "host.away": _fault(
        "Start that host, remove it, or let the environment skip it: `headway env set --away skip`.", retryable=True
    ),
    "host.busy": _conflict("Run the command again when others on that host have ended."),
    "host.key_mismatch": _conflict("List the hosts, and accept the key that is offered there."),
    "builder.not_found": _missing("builder"),
    "builder.exists": _conflict("Choose another id, or remove that builder first."),
    # domains
    "domain.not_found": _missing("domain"),
    "domain.invalid": _invalid("Name a domain of your own, as www.example.com."),
    "domain.reserved": _invalid("Name a domain of your own: the platform gives out its own names itself."),
    "domain.exists": _conflict("The environment has this domain: see its list."),
    "domain.taken": _conflict("Detach the name from the environment that it leads to, or name another."),
    "domain.not_verified": _conflict("Make the DNS records that the domain's row names, then verify it again."),
    "domain.resolver_failed": _fault("Check the resolver that HEADWAY_DNS_SERVERS names.", retryable=True),
    # hooks of forges
    "forge_hook.not_found": _missing("forge hook"),
    "forge_hook.forged": Code("authentication", 401, "Give the forge the secret that was shown with the hook."),
    # reports to forges
    "forge_link.not_found": _missing("forge that this site reports to"),
    "forge_link.url_refused": _invalid("Name the https:// address of the forge's API, or ask the operator."),
    "forge_link.repository_unknown": _invalid("Name the forge's API and the repository's path there."),
    "forge_report.not_found": _missing("report"),
    "forge_report.not_repeatable": _conflict("Only a report that was given up is sent again."),
    # webhooks
    "webhook_endpoint.url_refused": _invalid("Name an https:// address that is public, or ask the operator."),
    "notification.url_refused": _invalid("Name an address of a service that is listed, whole and by TLS."),
    "webhook_endpoint.disabled": _conflict("Enable the endpoint first."),
    "delivery.replayed": _conflict("That replay was asked for: use another replay_id for one more."),
    "delivery.not_repeatable": _conflict("Only a delivery that has failed is sent again."),
    "event_subscription.type_unknown": _invalid("Name an event of the catalogue, or a prefix.* of some."),
    "event_subscription.filter_invalid": _invalid("A filter has at most 8 keys, each with one plain value."),
    "event_subscription.consumer_not_found": Code("not_found", 404, "Name a webhook of this organisation."),
    # sandboxes
    "sandbox.name_taken": _conflict("Choose another name, or destroy the sandbox that has it."),
    "sandbox.path_invalid": _invalid("Name a file below /workspace, without `.` or `..`."),
    "sandbox.path_conflict": _conflict("A file cannot be a folder too: remove one of them first."),
    "sandbox.too_large": Code("invalid_request", 413, "Write less, or raise the sandbox's limits."),
    "sandbox.too_many": _conflict("Destroy sandboxes that are no longer needed, or raise the limit."),
    "sandbox.empty": _invalid("Write files into the sandbox first."),
    "request.unsupported": _conflict("This platform does not do that: the documents say what it does."),
    # source
    "ref.not_found": _invalid("Push the ref, or name one that exists."),
    "ref.invalid": _invalid("Name a branch, a tag or a commit."),
    "repository.invalid": _invalid("Use https://, ssh:// or an allowed file:// address, or leave it out."),
    "repository.missing": _conflict("Give the site a repository first."),
    "repository.not_allowed": _invalid(
        "Ask the operator to allow that address: a folder by --local-repos, a host by HEADWAY_EGRESS_PRIVATE_OK."
    ),
    "repository.unreachable": _fault("Check the address and that the remote answers.", retryable=True),
    "repository.access_denied": _invalid(
        "Give the site a deploy key or a token that may read it: `headway repository add-key` or `set-token`."
    ),
    "repository.empty": _invalid("Push a commit first."),
    "source.invalid": _invalid("Correct what the message names in the repository."),
    "source.too_large": _invalid("Make the tree smaller, or raise the limit."),
    "repository.remote": _conflict("Push to the site's own remote: the platform fetches from there."),
    "repository.full": _conflict("The site's repository has reached its limit: ask the operator to raise it."),
    "repository.credential_not_found": _missing("repository credential"),
    "repository.credential_unfit": _conflict("A deploy key is for ssh:// addresses, a token for https:// ones."),
    # git push
    "push.malformed": _invalid("Push with git 2.29 or newer."),
    "push.too_large": Code("invalid_request", 413, "Push less at once, or ask the operator to raise the limit."),
    "push.busy": Code("api_error", 503, "Push again in a moment.", True),
    "push.option_unknown": _invalid("Use -o env=NAME, -o clean, -o skip or -o no-wait."),
    "push.ref_unsupported": _invalid("Push branches and tags."),
    "push.default_branch": _conflict("Make another branch the default one first."),
    "push.held": _conflict("Have it approved, or wait: `headway jobs watch` shows what for."),
    "push.stale": _conflict("Fetch, and push again."),
    "push.in_flight": _conflict("Wait until it has ended, fetch, and push again."),
    # build
    "build.detect_failed": _invalid("Add a headway.toml that says how to build."),
    "build.config_invalid": _invalid("Correct headway.toml where the message says."),
    "build.step_failed": _invalid("Read the build's log."),
    "build.output_missing": _invalid("Name the folder that the build writes in [build] output."),
    "build.output_invalid": _invalid("Remove what the message names from the output."),
    "build.egress_denied": _invalid("Ask the operator to allow the host."),
    "build.secret_refused": _invalid("Set the secret with `headway secrets set`, or take it out of [build] secrets."),
    "build.timeout": _invalid("Make the build faster, or raise [build] timeout."),
    "build.out_of_memory": _invalid("Make the build use less memory, or raise the limit."),
    "build.disk_full": _invalid("Make the build write less, or raise the limit."),
    "build.too_many_processes": _invalid("Make the build start fewer processes."),
    "build.log_too_large": _invalid("Make the build print less."),
    "build.unsandboxed": _fault("Fix what `headway doctor` names, or start with --allow-unsandboxed-builds."),
    "build.workers_unavailable": _fault("Check the builders with `headway doctor`, then retry.", retryable=True),
    "upload.failed": _fault("The object store refused or lost an upload: retry.", retryable=True),
    "sign.failed": _fault("Check the signing worker with `headway doctor`, then retry.", retryable=True),
    # roll
    "mend.impossible": _conflict("Look for the bytes in a backup: nothing that is left of them is whole."),
    "roll.verify_failed": _fault("Build again: the artifact does not match its manifest."),
    "roll.host_busy": _fault(
        "The host starts as many apps as it may: deploy again when some have ended.", retryable=True
    ),
    "roll.place_failed": _fault("Check the host's disk and the object store, then retry.", retryable=True),
    "roll.disk_floor": _fault("Free disk space on the host, then retry.", retryable=True),
    "roll.health_failed": _invalid("The new release did not become healthy: read its log."),
    "roll.start_failed": _invalid("The app ended while it was started: read its last lines, correct it, deploy again."),
    "roll.release_command_failed": _invalid("Read the release command's lines in the job's log, then deploy again."),
    "roll.bake_failed": _invalid(
        "The new release did badly while it was watched: read its log, correct it, deploy again."
    ),
    "roll.timeout": _fault("Check the host worker with `headway doctor`, then retry.", retryable=True),
    "roll.stale": _conflict("A later rollout has already switched this environment."),
    # runtime
    "runtime.unavailable": _fault("Check the host with `headway doctor`, then retry.", retryable=True),
    "runtime.spec_invalid": _invalid("Correct what the message names in [run]."),
    "runtime.egress_refused": _invalid("Remove the entry from [run] egress, or ask the operator to allow it."),
    "runtime.isolation_missing": _fault("Fix what `headway doctor` names on the host."),
    "runtime.driver_unusable": _fault("Do what the message says on the host, or choose another HEADWAY_RUNTIME."),
    "runtime.path_too_long": _fault("Move the data folder to a shorter path: a socket's has at most 107 bytes."),
    # jobs
    "job.superseded": _conflict("What was accepted later has taken its place."),
    "job.canceled": _conflict("The job was canceled on request."),
    "job.lost": _fault("The run was ended from outside; what is live is recorded. Start a new job."),
    "attempt.stale": _conflict("A later attempt has taken over this work."),
    "attempt.held": Code("conflict", 409, "Another builder is at this work: wait until it is silent.", retryable=True),
    # ledger
    "ledger.inconsistent": _fault("The ledger is not what was signed: keep both states, and restore one that agrees."),
    # broker
    "broker.untrusted": _fault("Compare broker.pem with the API's; `headway hosts join --renew` writes it anew."),
    # launcher
    "stack.folder_invalid": _fault("Repair or move away what the message names in the data folder."),
    "stack.setting_invalid": _fault("Correct what the message names; `headway doctor --config` checks all settings."),
    "stack.binary_missing": _fault("Install Headway with its dependencies, or name the binary in the settings."),
    "stack.port_busy": _fault("Stop what holds the port, or start with another --port (0 finds a free block)."),
    "stack.running": _conflict("Stop the running stack with `headway down` first."),
    "stack.start_failed": _fault("Read the log that the message names, then run `headway doctor`."),
    # platform
    "internal.error": _fault("Retry with the same Idempotency-Key; then look at the logs.", retryable=True),
    "service.unavailable": Code("api_error", 503, "Retry shortly with the same Idempotency-Key.", True),
}


class HeadwayError(Exception):
    """An expected failure. `code` is a key of CODES; `param` names the field to blame, if there is one.

    `details` are extra public facts (for example `exit_code`); they never hold secrets.
    """

    def __init__(self, code: str, message: str, *, param: str | None = None, **details: Any) -> None:
        if code not in CODES:
            raise KeyError(f"unknown error code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.details = details

    @property
    def type(self) -> str:
        return CODES[self.code].type

    @property
    def status(self) -> int:
        return CODES[self.code].status

    @property
    def retryable(self) -> bool:
        return CODES[self.code].retryable

    def as_dict(self) -> dict[str, Any]:
        """The stored shape: `{code, message, param?, …details}`; dialects add their own fields."""
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.param is not None:
            out["param"] = self.param
        return {**out, **self.details}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> HeadwayError:
        known = dict(raw)
        code = known.pop("code", "internal.error")
        message = known.pop("message", code)
        param = known.pop("param", None)
        if code not in CODES:
            message, code = f"{code}: {message}", "internal.error"
        return cls(code, message, param=param, **known)


def error_object(error: HeadwayError, docs_url: str) -> dict[str, Any]:
    """`{type, code, message, param?, doc_url, …facts}`; the same inside a job."""
    facts: dict[str, Any] = {"type": error.type, "code": error.code, "message": error.message}
    if error.param is not None:
        facts["param"] = error.param
    facts["doc_url"] = f"{docs_url}/reference/error-codes/#{error.code}"
    return {**facts, **{key: value for key, value in error.details.items() if key not in facts}}
