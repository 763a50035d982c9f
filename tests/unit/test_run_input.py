"""`headway run` passes no standard input on, and says so where there is some."""

from __future__ import annotations

import os
from pathlib import Path

from headway.cli.run import _is_given


def test_what_is_waiting_is_seen_and_left_there(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    assert not _is_given(reader)
    os.write(writer, b"some")
    assert _is_given(reader)
    assert os.read(reader, 9) == b"some"
    os.close(writer)
    assert not _is_given(reader)
    os.close(reader)
    assert not _is_given(reader)
    path = tmp_path / "lines"
    path.write_text("one")
    with path.open("rb", buffering=0) as file, open(os.devnull, "rb") as none:
        assert _is_given(file.fileno())
        file.read()
        assert not _is_given(file.fileno())
        assert not _is_given(none.fileno())
