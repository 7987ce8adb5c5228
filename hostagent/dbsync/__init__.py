"""Bringing the database up to date with this host: one function per item of S28, and what belongs to it.

Each takes a transaction and what it needs, changes what differs, and returns the exact changes. A second run with the
same facts changes nothing (startup-and-pool-join.md S28).
"""
