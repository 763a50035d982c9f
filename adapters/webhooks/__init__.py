"""Webhooks out: what signs them, where they may go, and one try to send one."""
