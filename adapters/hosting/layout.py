"""Where everything lies on a host. Constant: Caddy's configuration and running instances rely on it.

```
store/<aa>/<sha256>-<644|755>          one sealed content
trees/<digest>/root/…                  a release tree of hard links; manifest.json beside it
env/<env_id>/r/<seq>/                  one placed release: root → the tree, and marker files
env/<env_id>/current → r/<seq>         what is live
env/<env_id>/r/<seq>/config.sealed     its configuration, for this host's key alone
env/<env_id>/fence, lock               the last applied sequence number; held while it is compared
routes/<host name> → ../env/<env_id>
volumes/<env_id>/<mount>               what an app keeps across releases; it is nowhere else
trust/*.pub, identity.key, tmp/, inputs/
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headway.errors import HeadwayError
from headway.ids import is_id


@dataclass(frozen=True)
class HostFolders:
    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def environments(self) -> Path:
        return self.root / "env"

    @property
    def routes(self) -> Path:
        return self.root / "routes"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def identity(self) -> Path:
        """The key that this host's configuration is sealed to."""
        return self.root / "identity.key"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def inputs(self) -> Path:
        """What one-off commands are given, while they run."""
        return self.root / "inputs"

    def environment(self, env_id: str) -> Path:
        """The folder of an environment. Raises internal.error on what is not an id: it would be a path."""
        if not is_id(env_id):
            raise HeadwayError("internal.error", "An environment's id has an impossible shape.")
        return self.environments / env_id

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self.store, self.trees, self.environments, self.routes, self.trust, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)
