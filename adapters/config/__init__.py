"""Configuration at rest (vault), on its way to a host (sealed), and kept out of logs (redaction)."""
