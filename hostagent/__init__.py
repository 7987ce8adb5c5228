"""Host agent for Xen: what xapi does on XenServer, on a plain Debian dom0."""

# The packaging reads it from here: importlib.metadata would cost every command 0.7 s in a slow dom0.
__version__ = "0.1.0"
