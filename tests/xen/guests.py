"""Small PV guests for tests: dom0's own kernel and an initrd with nothing but busybox, made in the dom0 itself."""

from __future__ import annotations

import json
from typing import Any

HOME = "/root/test-guests"

PREPARE = f"""
set -e
test -e {HOME}/initrd.gz && exit 0
mkdir -p {HOME}/root/bin {HOME}/root/proc
cd {HOME}
cp "$(command -v busybox)" root/bin/busybox
printf '#!/bin/busybox sh\\nwhile :; do /bin/busybox sleep 1000; done\\n' > root/init
chmod +x root/init
(cd root && find . | cpio --quiet -o -H newc | gzip > ../initrd.new)
mv initrd.new initrd.gz
"""


def xl_guest(name: str, *, mib: int = 256) -> str:
    """Shell lines that make a guest with xl; its monitor stays behind and must not hold ssh's output open."""
    return f"""
kernel=$(ls /boot/vmlinuz-* | tail -1)
cat > {HOME}/{name}.cfg <<EOF
name="{name}"
kernel="$kernel"
ramdisk="{HOME}/initrd.gz"
memory={mib}
vcpus=1
EOF
xl create -q {HOME}/{name}.cfg < /dev/null > {HOME}/{name}.log 2>&1 || {{ cat {HOME}/{name}.log; exit 1; }}
"""


def libvirt_guest(name: str, *, mib: int = 256) -> str:
    """Shell lines that make a guest with libvirt."""
    return f"""
kernel=$(ls /boot/vmlinuz-* | tail -1)
cat > {HOME}/{name}.xml <<EOF
<domain type='xen'><name>{name}</name><memory unit='MiB'>{mib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='xenpv'>linux</type><kernel>$kernel</kernel>
<initrd>{HOME}/initrd.gz</initrd></os><devices><console type='pty'/></devices></domain>
EOF
virsh -q -c xen:///system create {HOME}/{name}.xml
"""


def xl_list(text: str) -> dict[int, tuple[str, int, int]]:
    """The table of `xl list` as domid -> name, MiB, vCPUs."""
    rows = (line.split() for line in text.splitlines()[1:] if line.strip())
    return {int(row[1]): (row[0], int(row[2]), int(row[3])) for row in rows}


def parts(stdout: str) -> list[str]:
    """What a script printed between its `echo ====` lines."""
    return stdout.split("====\n")


def listed(text: str) -> dict[str, dict[str, Any]]:
    """The domains of `hostagent xen domains --json` by name."""
    return {domain["name"]: domain for domain in json.loads(text)["domains"]}
