"""Notices on the engine of webhooks: tried again, delivered to a real mail server, and unknown to Temporal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from activities.webhooks import Webhooks
from adapters.config.vault import Vault
from adapters.notices.notifier import Notifier
from headway.webhooks import NOTICE
from store import webhooks
from store.webhooks import EndpointRequest
from temporal import names
from tests.adapters.mail_server import MailServer
from tests.workflows.engine import Engine, run_story
from tests.workflows.test_deliver import all_ended, delivering, ping

CANARY = "canary-recipient"


@pytest.mark.slow
def test_a_notice_is_tried_again_and_arrives(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with MailServer(["451 later"]) as mail:
            url = f"mailto://127.0.0.1:{mail.port}?from=headway@acme.test&to={CANARY}@acme.test"
            vault = Vault(engine.settings.webhook_keys)
            wanted = EndpointRequest(NOTICE, "mailto://…", ["*"], 7, hidden_url=url)
            with engine.store.write() as session:
                made, _ = webhooks.create_endpoint(session, vault, engine.world.team_id, wanted, None, {})
            async with delivering(engine) as on:
                assert isinstance(on, Webhooks)
                on.notifier = Notifier(["127.0.0.1"], 60.0)
                id = ping(engine, made.id)
                [row] = await all_ended(engine, 1)
                handle = engine.client.get_workflow_handle(names.delivery_workflow(id))
                history = json.dumps((await handle.fetch_history()).to_json_dict())
            assert (row.state, len(row.tries)) == ("delivered", 2)
            assert row.tries[0]["error"]
            assert CANARY not in json.dumps(row.tries) + history
            [sent] = mail.mails
            assert CANARY in sent
            assert "webhook.test" in sent

    run_story(tmp_path, story)
