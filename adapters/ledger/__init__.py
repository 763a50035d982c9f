"""The ledger: a Merkle tree as in RFC 6962 over everything that was signed, and the proofs that outsiders check."""
