"""What `doctor` looks at in the stack: supervisor, components, database, Temporal, objects, web server, workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from headway.supervisor import checks, identity, ports, tenure
from headway.supervisor.components import NAMESPACE, NO_CONFIG, SEARCH_ATTRIBUTES, WORKERS
from headway.supervisor.findings import Finding, failure, ok, warning
from headway.supervisor.folder import Folder, read_record, s3_credentials
from headway.supervisor.plan import Plan
from headway.supervisor.twin import TWIN

_SEEN_WITHIN = 90.0


class StackExamination:
    """One look at one folder's stack. `temporal` is the path of the binary to ask with."""

    def __init__(self, folder: Folder, plan: Plan, temporal: str, *, bucket: str, database: str) -> None:
        self.folder, self.plan, self._temporal = folder, plan, temporal
        self._bucket, self._database = bucket, database

    def supervisor(self) -> Iterator[Finding]:
        record = tenure.current(self.folder)
        if not record:
            yield failure("supervisor", "nobody watches over this stack", f"headway up --data-dir {self.folder.root}")
            return
        yield ok("supervisor", f"process {record['pid']}, {record.get('mode')}, {record.get('state')}")
        if not identity.alive(read_record(self.folder.record(TWIN))):
            yield warning("standby", "no twin stands by", "It is started again within a second; look again.")

    def components(self) -> Iterator[Finding]:
        facts = read_record(self.folder.record(tenure.SUPERVISOR)).get("components", {})
        for component in self.plan.components:
            known = facts.get(component.name, {})
            restarts, last = known.get("restarts", 0), known.get("last_exit", "")
            often = "once" if restarts == 1 else f"{restarts} times"
            history = f", restarted {often} (last: {last})" if restarts else ""
            log = self.folder.log(component.name)
            if component.once:
                if known.get("state") != "ready":
                    yield failure(component.name, f"has not been done{history}", f"Read {log}.")
                continue
            record = read_record(self.folder.record(component.name))
            if not identity.alive(record):
                yield failure(component.name, f"does not run{history}", self._revive(component.ports, str(log)))
            elif not all(checks.holds(check) for check in component.ready):
                yield failure(component.name, f"process {record['pid']} does not answer{history}", f"Read {log}.")
            elif restarts:
                yield warning(component.name, f"process {record['pid']}{history}", f"Read {log}.")
            else:
                yield ok(component.name, f"process {record['pid']}, {memory(int(record['pid']))}")

    def _revive(self, wanted: dict[str, int], log: str) -> str:
        for use, port in wanted.items():
            if not ports.is_free(port):
                holder = ports.holder_of(port)
                by = f" by process {holder[0]} ({holder[1]})" if holder else ""
                return f"Port {port} ({use}) is taken{by}: stop it, or start with another --port."
        return f"Read {log}, then run `headway up --data-dir {self.folder.root}`."

    def database(self) -> Iterator[Finding]:
        from store import migrations

        at, newest = migrations.current(self._database), migrations.newest()
        if at != newest:
            yield failure("database", f"its schema is at {at}, this version needs {newest}", "Run `headway migrate`.")
        else:
            kind = "SQLite" if self._database.startswith("sqlite") else "PostgreSQL"
            yield ok("database", f"{kind}, schema {at}")

    def temporal(self) -> Iterator[Finding]:
        fix = f"Read {self.folder.log('temporal')}."
        namespace = self._ask("operator", "namespace", "describe")
        if namespace is None:
            yield failure("Temporal", f"{self.plan.endpoints['temporal']} does not answer", fix)
            return
        yield ok("Temporal", f"answers at {self.plan.endpoints['temporal']}")
        listed = (self._ask("operator", "search-attribute", "list") or {}).get("customAttributes", {})
        missing = [name for name in SEARCH_ATTRIBUTES if name not in listed]
        if missing:
            yield failure("search attributes", f"missing: {', '.join(missing)}", "Run `headway up` again.")
        else:
            yield ok("search attributes", ", ".join(SEARCH_ATTRIBUTES))

    def workers(self) -> Iterator[Finding]:
        """Whether the living process of each role was seen at its queue of late."""
        for role in WORKERS:
            record = read_record(self.folder.record(role))
            queue = self._queue(role)
            pollers = (self._ask("task-queue", "describe", "--task-queue", queue) or {}).get("pollers") or []
            mine = [one for one in pollers if one.get("identity", "").split("@")[0] == str(record.get("pid"))]
            fix = f"Read {self.folder.log(role)}."
            if not pollers:
                yield failure(f"queue {queue}", "no worker polls it", fix)
            elif not mine:
                yield failure(f"queue {queue}", "the worker that runs does not poll it", fix)
            elif all(_age(one.get("lastAccessTime", "")) > _SEEN_WITHIN for one in mine):
                yield failure(f"queue {queue}", f"its worker was not seen for {_SEEN_WITHIN:.0f} s", fix)
            else:
                yield ok(f"queue {queue}", f"polled by process {record['pid']}")

    def _queue(self, role: str) -> str:
        from temporal import names

        component = next((one for one in self.plan.components if one.name == role), None)
        host_id = component.argv[component.argv.index("--host-id") + 1] if component and role == "host" else "local"
        return {"control": names.CONTROL, "builder": names.BUILDERS, "signing": names.SIGNING}.get(
            role, names.host_queue(host_id)
        )

    def _ask(self, *words: str) -> dict[str, Any] | None:
        """An answer of Temporal's own client, which needs none of our imports."""
        reach = ("--address", self.plan.endpoints["temporal"], "--namespace", NAMESPACE, *NO_CONFIG)
        done = subprocess.run(
            [self._temporal, *words, *reach, "--output", "json", "--command-timeout", "5s"],
            capture_output=True,
            timeout=20,
            check=False,
        )
        if done.returncode != 0:
            return None
        answer = json.loads(done.stdout)
        return answer if isinstance(answer, dict) else {"items": answer}

    def objects(self) -> Iterator[Finding]:
        """Writes an object, reads it back, removes it."""
        import boto3
        from botocore.config import Config

        access, secret = s3_credentials(self.folder)
        client = boto3.client(
            "s3",
            endpoint_url=self.plan.endpoints["s3"],
            region_name="us-east-1",
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 1}, proxies={}),
        )
        try:
            key, body = f"doctor/{os.getpid()}", os.urandom(64)
            client.put_object(Bucket=self._bucket, Key=key, Body=body)
            got = client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            client.delete_object(Bucket=self._bucket, Key=key)
        except Exception as error:
            first = str(error).splitlines()[0][:200]
            yield failure("object store", f"put and get failed: {first}", f"Read {self.folder.log('weed')}.")
            return
        if got != body:
            yield failure("object store", "it returned other bytes than it was given", "Check the disk.")
        else:
            yield ok("object store", f"put and get at {self.plan.endpoints['s3']}")

    def web_server(self) -> Iterator[Finding]:
        """A name that no site has is answered with 404, a Host that is none with 421."""
        _, _, address = self.plan.endpoints["sites"].partition("//")
        host, _, port = address.partition(":")
        for name, expected in (("headway-doctor.localhost", 404), ("..", 421)):
            with socket.create_connection((host, int(port)), 2) as link:
                got = checks.http_status(link, "/", name)
            if got != expected:
                fix = f"Read {self.folder.log('caddy')}, then run `headway up` again."
                yield failure("web server", f"Host {name!r} got {got} instead of {expected}", fix)
                return
        yield ok("web server", f"serves at {self.plan.endpoints['sites']}")


def memory(pid: int) -> str:
    """The proportional share of memory of a process."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return "memory unknown"
    return f"{kib / 1024:.0f} MiB"


def _age(stamp: str) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(stamp.replace("Z", "+00:00"))).total_seconds()
    except ValueError:
        return float("inf")
