"""A builder's process, for tests that ask the broker's parts themselves."""

from __future__ import annotations

from store.keys import hashed
from store.leases import Holder
from store.models import utcnow

HOLDER = Holder("local", hashed("what this process alone knows"), utcnow())
