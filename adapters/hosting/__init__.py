"""The folders of one serving machine: sealed contents, release trees, and the fenced switch (DESIGN section 7)."""
