"""Domains: which DNS records prove a name and lead it here, and what is found of them."""
