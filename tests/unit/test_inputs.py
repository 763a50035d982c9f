"""What a build takes in, as one digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adapters.artifact.folder import Folder
from adapters.plan.inputs import inputs_digest
from adapters.plan.plan import Plan

PLAN = Plan("static", "headway.toml", "make", ("dist",), toolchain={"node": "20.1.0"})
WATCHING = replace(PLAN, watch=("web", "theme.css", "gone"))


def digest(root: Path, plan: Plan, source: str = "a" * 64) -> str | None:
    with Folder(root) as folder:
        return inputs_digest(folder, plan, source)


def tree(root: Path, **files: str) -> Path:
    for name, text in {"web/page": "x", "theme.css": "y", "other": "z", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_source_plan_and_toolchain_count(tmp_path: Path) -> None:
    tree(tmp_path)
    first = digest(tmp_path, PLAN)
    assert first == digest(tmp_path, PLAN)
    others = [digest(tmp_path, PLAN, "b" * 64), digest(tmp_path, replace(PLAN, toolchain={"node": "20.1.1"}))]
    others += [digest(tmp_path, replace(PLAN, env={"A": "1"})), digest(tmp_path, replace(PLAN, install="npm ci"))]
    assert len({first, *others}) == 5


def test_of_a_plan_that_watches_only_what_is_watched_counts(tmp_path: Path) -> None:
    first = digest(tree(tmp_path / "a"), WATCHING)
    assert first == digest(tree(tmp_path / "b", other="changed"), WATCHING, "b" * 64)
    changes = ({"web/page": "2"}, {"web/more": "x"}, {"theme.css": "2"}, {"gone": "back"})
    found = {digest(tree(tmp_path / str(number), **files), WATCHING) for number, files in enumerate(changes)}
    assert len(found | {first}) == 5
    (tmp_path / "a/web/page").chmod(0o755)
    assert digest(tmp_path / "a", WATCHING) != first


def test_what_cannot_be_read_is_never_the_same(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "web/odd").symlink_to("page\nx")
    (tmp_path / "theme.css").unlink()
    (tmp_path / "theme.css").symlink_to("web/page")
    assert digest(tmp_path, WATCHING) is None
