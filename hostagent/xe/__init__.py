"""The xe command: its arguments, generated and hand-made commands, output, and the wire protocol of `/cli`."""
