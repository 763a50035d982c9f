"""Caddy's configuration of the stack: what changes it starts Caddy again; nothing is written through a link."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headway.cli.up import _write
from headway.supervisor.components import Options, caddy
from headway.supervisor.folder import open_folder
from headway.supervisor.ports import Block


def test_another_configuration_starts_caddy_again(tmp_path: Path) -> None:
    options = Options(open_folder(tmp_path / "d"), Block(7070), "temporal", "weed", "caddy", web_config="one")
    same, other = replace(options, settings={"HEADWAY_JOB_RETENTION_DAYS": "3"}), replace(options, web_config="two")
    assert caddy(options).fingerprint() == caddy(same).fingerprint()
    assert caddy(options).fingerprint() != caddy(other).fingerprint()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    folder, victim = open_folder(tmp_path / "d"), tmp_path / "victim"
    victim.write_text("as it was")
    folder.path("caddy", "caddy.json").symlink_to(victim)
    _write(Options(folder, Block(7070), "temporal", "weed", "caddy"))
    assert victim.read_text() == "as it was"
    assert folder.path("caddy", "caddy.json").read_bytes().startswith(b"{")
