"""The nested-Xen lab: real Xen hosts under QEMU, from image to faults.

Words: *image* (a release's root file system), *slot* (h1..h4: one identity with its saved, booted state),
*host* (a running QEMU of a slot), *segment* (a network that joins hosts and the test process), *lab* (hosts
and segments that come and go together, all inside one network namespace).
"""
