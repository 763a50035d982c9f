"""What every message of the wire is, and what its requests carry."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

# What a builder's process alone knows.
HOLDER: Final = "Headway-Holder"
# What every broker is called by TLS, wherever it is: its own authority vouches for nothing else.
TLS_NAME: Final = "broker.headway.internal"
# To sign an address takes half a millisecond: what asks for more of them at once waits too long.
MAX_PACKS: Final = 500


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
