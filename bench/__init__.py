"""Measurements through the public HTTP API, side by side with the bare work. `make bench` runs all of them."""
