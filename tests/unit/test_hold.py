"""How long a rollout's run begins behind its host (docs/decisions/0055): only where the server counts that finely."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.settings import Settings
from headway.supervisor.components import HOLD_MS, Options, embedded
from headway.supervisor.folder import Folder
from headway.supervisor.ports import Block


@pytest.mark.parametrize(("said", "wanted"), [({}, str(HOLD_MS)), ({"HEADWAY_HOLD_MS": "0"}, "0")])
def test_the_embedded_server_counts_so_finely_and_the_operator_has_the_last_word(
    tmp_path: Path, said: dict[str, str], wanted: str
) -> None:
    options = Options(Folder(tmp_path), Block(7070), "temporal", "weed", "caddy", settings=said)
    made = {one.name: one for one in embedded(options).components}
    assert made["api"].env["HEADWAY_HOLD_MS"] == wanted
    assert '--dynamic-config-value=history.timerProcessorMaxTimeShift="10ms"' in made["temporal"].argv


def test_with_a_server_of_ones_own_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_HOLD_MS", raising=False)
    assert Settings().hold_ms == 0
