"""The host's network as the database wants it: refusals, changes of objects, and their effect through `net/`."""
