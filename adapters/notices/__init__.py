"""Notices to people, by chat and e-mail: Apprise says them, in a process of its own that may do little else."""
