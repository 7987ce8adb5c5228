"""A host as the tests have it: what a nested Xen 4.20 dom0 with two processors and 3 GiB says."""

from __future__ import annotations

import dataclasses
import datetime as dt

from hostagent.hostinfo import system
from hostagent.hostinfo.facts import Dom0, Facts, Memory
from hostagent.xen.facts import Capabilities, HostFacts
from hostagent.xen.featureset import Featuresets

HOST_UUID = "0f1e2d3c-4b5a-4697-8788-99aabbccddee"
DOM0_UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
NOW = dt.datetime(2026, 11, 21, 17, 0, 0, tzinfo=dt.UTC)
MIB = 1 << 20

CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 15
model\t\t: 107
model name\t: QEMU Virtual CPU version 2.5+
stepping\t: 1
microcode\t: 0x1000065
cpu MHz\t\t: 2394.454
cache size\t: 512 KB
physical id\t: 0
flags\t\t: fpu de tsc msr pae mce cx8  apic hypervisor lahf_lm svm
bugs\t\t: fxsave_leak sysret_ss_attrs
power management:

processor\t: 1
vendor_id\t: AuthenticAMD
cpu family\t: 15
model\t\t: 107
model name\t: QEMU Virtual CPU version 2.5+
stepping\t: 1
cpu MHz\t\t: 2400.001
flags\t\t: fpu de tsc msr

"""
STAT = "cpu  12 0 34 56\ncpu0 12 0 34 56\nintr 5 0\nctxt 9\nbtime 1795280400\nprocesses 4\n"
MEMINFO = "MemTotal:        2012345 kB\nMemFree:          812345 kB\n"
OS_RELEASE = """\
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
ID=debian
"""

XEN = HostFacts(
    version="4.20.1",
    changeset="unavailable",
    compiler="gcc (Debian 14.2.0-19) 14.2.0",
    compile_date="Sat Aug  9 10:00:00 UTC 2025",
    commandline="dom0_mem=2048M,max:2048M",
    capabilities=Capabilities(pv=True, hvm=True, hap=True, iommu=False),
    guest_types=("xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"),
    cpus=2,
    sockets=1,
    cores_per_socket=2,
    threads_per_core=1,
    numa_nodes=1,
    cpu_khz=2394454,
    hw_caps="178bfbfd:80802001",
    total_kib=3 << 20,
    free_kib=900 << 10,
    scrub_kib=0,
    usable_free_kib=828 << 10,
    dom0_mem_fixed=True,
    binding="/usr/lib/xen-4.20/lib/python/xen/lowlevel/xc.cpython-313-x86_64-linux-gnu.so",
)
FEATURES = Featuresets(
    pv="178bfbfd-80802001", hvm="178bfbff-80802001", pv_max="178bfbfd-80802021", hvm_max="178bfbff-80802021"
)


def facts(**changes) -> Facts:
    """The facts of the sample host, with some of them changed."""
    made = Facts(
        host_uuid=HOST_UUID,
        dom0_uuid=DOM0_UUID,
        build_number="0",
        agent_start=1795280460,
        system=system.System(
            hostname="h1",
            kernel="6.12.41+deb13-amd64",
            release="Debian GNU/Linux 13 (trixie)",
            boot_time=1795280400,
            memory_kib=2012345,
            timezone="Europe/Berlin",
            bios={"bios-vendor": "SeaBIOS"},
            processors=system.processors(CPUINFO),
        ),
        address="192.0.2.10",
        xen=XEN,
        scheduler="credit2",
        loaders=("pygrub",),
        features=FEATURES,
        memory=Memory(
            total=3072 * MIB,
            free=900 * MIB,
            boot_free=2948 * MIB,
            overhead=196 * MIB,
            dom0=2048 * MIB,
            estimate=False,
        ),
        dom0=Dom0(2, "pv"),
    )
    return dataclasses.replace(made, **changes)
