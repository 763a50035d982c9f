"""The embedded driver: one small keeper process per instance, and bubblewrap around what it keeps."""
