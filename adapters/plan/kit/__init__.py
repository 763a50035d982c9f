"""Programs that builds of Python run on their own tree, inside the sandbox: standard library only."""
