"""What the host is, as the database has it: readers of the system's files, and pure functions from facts to records."""
