"""The local API: JSON-RPC 2.0 on a Unix socket, from HTTP (`server`, `app`) to `calls`."""
