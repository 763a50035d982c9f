"""How host names reach releases: Caddy's constant configuration, the folder of routes, the rules socket."""
