"""How long-running processes of a release are kept: one interface, a driver per kind of supervisor."""
