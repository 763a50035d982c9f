"""`headway` and `mf`: the same program."""

from __future__ import annotations

import os
import sys

from headway import _launch


def main() -> None:
    """Run the command line; the exit code is the process's."""
    _launch.enter()
    from headway.cli.main import run

    name = os.path.basename(sys.argv[0])
    run(sys.argv[1:], program=name if name in ("headway", "mf") else "headway")


if __name__ == "__main__":
    main()
