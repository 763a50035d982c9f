"""The bare repositories that the platform keeps for sites, and how git serves them."""
