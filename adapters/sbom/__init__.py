"""Software bills of materials: what lock files and the tree name, as one CycloneDX document per build."""
