"""`git push` and `git clone` over HTTP: the door, the bridge to git's own server, and what a push starts."""
