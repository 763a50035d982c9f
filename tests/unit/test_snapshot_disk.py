"""What a snapshot's tree is to blame for, and what the builder's disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from adapters.source import snapshot
from headway.errors import HeadwayError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENAMETOOLONG])
def test_a_full_disk_is_no_fault_of_the_source(tmp_path: Path, number: int) -> None:
    def fail(_folder: int, _name: str) -> None:
        raise OSError(number, os.strerror(number))

    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(HeadwayError if number == errno.ENAMETOOLONG else OSError) as error:
            snapshot._write(root, "a/b", fail)
    finally:
        os.close(root)
    assert getattr(error.value, "code", "retried") == ("source.invalid" if number == errno.ENAMETOOLONG else "retried")
