"""The MIOSA dialect, `/api/v1`: translation of names, envelopes and errors onto the engine behind it."""
