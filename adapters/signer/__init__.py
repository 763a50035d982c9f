"""Signing and verifying: `attest` makes a Sigstore bundle of a statement, `check` decides whether to believe one."""
