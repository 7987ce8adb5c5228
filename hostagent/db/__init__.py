"""What the host remembers. `local` is this host's own small store, readable without any other daemon."""
