"""The start-up sequence: the table of steps, the runner that alone catches and times, the report."""
