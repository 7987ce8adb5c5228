"""Drivers over Xen's own interfaces: hypercalls, xenstore, dom0 memory, libvirt's view, the inventory."""
