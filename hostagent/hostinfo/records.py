"""From facts to the fields of XenAPI records: host, its processors and measurements, dom0, the pool, root.

Pure: the same facts give the same fields. Which fields clients rely on: xenapi.md 2.6 and 3.2 to 3.5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent import __version__
from hostagent.db.model import SCHEMA
from hostagent.xen.featureset import common

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.hostinfo.facts import Facts

API_VERSION = (2, 23)
"""The API level of the data model (`datamodel.json`)."""
BRAND = "hostagent"
PLATFORM_NAME = "XCP"
PLATFORM_VERSION = "3.4.0"
"""What clients switch features by: the platform whose interface this is, not our own version."""
RELEASE_DATE = "2026-11-21"
"""Changed together with `__version__`."""
BUILD_HOST = "localhost"
NETWORK_BACKEND = "bridge"
MEMORY_RATIOS = {"memory-ratio-hvm": "0.25", "memory-ratio-pv": "0.25"}
CLUSTER_STACK = "xhad"
ROOT_USER = {"short_name": "root", "fullname": "superuser"}
DOM0_DESCRIPTION = "The domain that has this host's devices and manages its other domains"
NO_DOMAIN = -1


def software_version(facts: Facts) -> dict[str, str]:
    """host.software_version. `xapi` is the API level: clients refuse a host that does not name one.

    Without keys for XenCenter, for which nothing here was tried, and `git_id`, which a bundle does not have.
    """
    return {
        "product_version": __version__,
        "product_version_text": __version__,
        "product_brand": BRAND,
        "platform_name": PLATFORM_NAME,
        "platform_version": PLATFORM_VERSION,
        "build_number": facts.build_number,
        "hostname": BUILD_HOST,
        "date": RELEASE_DATE,
        "xapi": ".".join(map(str, API_VERSION)),
        "xapi_build": __version__,
        "xen": (facts.xen.version if facts.xen else None) or "",
        "linux": facts.system.kernel,
        "distribution": facts.system.release,
        "network_backend": NETWORK_BACKEND,
        "db_schema": ".".join(map(str, SCHEMA)),
        **facts.extra_versions,
    }


def cpu_info(facts: Facts) -> dict[str, str]:
    """host.cpu_info. Counts are the machine's, from Xen; where nobody could ask it, those of dom0. Model and flags are
    what dom0 sees. Features are empty where they are not known.
    """
    xen, seen, sets = facts.xen, facts.system.processors, facts.features
    return {
        "cpu_count": str(cpu_count(facts)),
        "socket_count": str((xen.sockets if xen else None) or 1),
        "threads_per_core": str((xen.threads_per_core if xen else None) or 1),
        "nr_nodes": str((xen.numa_nodes if xen else None) or 1),
        "vendor": seen.vendor,
        "speed": f"{_mhz(facts):.3f}",
        "modelname": seen.modelname,
        "family": str(seen.family),
        "model": str(seen.model),
        "stepping": seen.stepping,
        "flags": seen.flags,
        "features_pv": sets.pv_max,
        "features_hvm": sets.hvm_max,
        "features_pv_host": sets.pv,
        "features_hvm_host": sets.hvm,
    }


def cpu_count(facts: Facts) -> int:
    """How many logical processors the machine has."""
    return (facts.xen.cpus if facts.xen else None) or facts.system.processors.count


def host_cpus(facts: Facts) -> list[dict[str, object]]:
    """The fields of each host_cpu but `host`, by number. All are taken to be of the first one's model."""
    seen = facts.system.processors
    same: dict[str, object] = {
        "vendor": seen.vendor,
        "speed": round(_mhz(facts)),
        "modelname": seen.modelname,
        "family": seen.family,
        "model": seen.model,
        "stepping": seen.stepping,
        "flags": seen.flags,
        "features": facts.features.hvm or facts.features.pv,
    }
    return [{"number": number, **same} for number in range(cpu_count(facts))]


def _mhz(facts: Facts) -> float:
    """Xen's figure, which does not move with the load as that of /proc/cpuinfo does."""
    khz = facts.xen.cpu_khz if facts.xen else None
    return khz / 1000 if khz else facts.system.processors.mhz


def host(facts: Facts) -> dict[str, object]:
    """The fields of the host that follow from facts at every start; `host_times` are apart."""
    iommu = facts.xen.capabilities.iommu if facts.xen else None
    return {
        "API_version_major": API_VERSION[0],
        "API_version_minor": API_VERSION[1],
        "API_version_vendor": BRAND,
        "API_version_vendor_implementation": {},
        "software_version": software_version(facts),
        "hostname": facts.system.hostname,
        "capabilities": list(facts.xen.guest_types) if facts.xen else [],
        "sched_policy": facts.scheduler,
        "supported_bootloaders": list(facts.loaders),
        "chipset_info": {} if iommu is None else {"iommu": "true" if iommu else "false"},
        "bios_strings": dict(facts.system.bios),
        "timezone": facts.system.timezone,
        "secure_boot": facts.system.secure_boot,
        "ssl_legacy": False,
    }


def first_host(facts: Facts) -> dict[str, object]:
    """What a host gets when its record is made, and is the operator's or other steps' afterwards."""
    return {
        **host(facts),
        "uuid": facts.host_uuid,
        "name_label": facts.system.hostname,
        "name_description": "Default install",
        "address": facts.address,
        "enabled": False,
        "cpu_configuration": {},
        "other_config": host_times(facts),
    }


def host_times(facts: Facts) -> dict[str, str]:
    """Keys of host.other_config: when the machine and this process started, in seconds since 1970."""
    return {"boot_time": str(facts.system.boot_time), "agent_start_time": str(facts.agent_start)}


def host_metrics(facts: Facts) -> dict[str, object]:
    """The measurements of the host but the time of the last one."""
    return {"live": True, "memory_total": facts.memory.total, "memory_free": facts.memory.free}


def dom0_name(facts: Facts) -> str:
    return f"Control domain on host: {facts.system.hostname}"


def dom0(facts: Facts) -> dict[str, object]:
    """The fields of the control domain's VM record that follow from facts at every start, but references.

    All five sizes are what dom0 has: it is never ballooned behind an operator's back (startup-and-pool-join.md 5.4).
    """
    size, vcpus = facts.memory.dom0, facts.dom0.vcpus
    return {
        "power_state": "Running",
        "domid": 0,
        "is_control_domain": True,
        "is_a_template": False,
        "memory_target": size,
        "memory_static_max": size,
        "memory_dynamic_max": size,
        "memory_dynamic_min": size,
        "memory_static_min": size,
        "VCPUs_max": vcpus,
        "VCPUs_at_startup": vcpus,
        "domain_type": facts.dom0.domain_type,
    }


def first_dom0(facts: Facts) -> dict[str, object]:
    """What dom0's record gets when it is made. `cores-per-socket` is there as Xen Orchestra would write it itself."""
    return {
        **dom0(facts),
        "uuid": facts.dom0_uuid,
        "name_label": dom0_name(facts),
        "name_description": DOM0_DESCRIPTION,
        "user_version": 1,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "destroy",
        "actions_after_crash": "destroy",
        "platform": {"cores-per-socket": "1"},
        "other_config": {"is_system_domain": "true"},
        "has_vendor_device": False,
    }


def dom0_metrics(facts: Facts, start_time: str) -> dict[str, object]:
    """The measurements of dom0 but the time of the last one; `start_time` is the machine's."""
    return {
        "memory_actual": facts.memory.dom0,
        "VCPUs_number": facts.dom0.vcpus,
        "state": ["running"],
        "start_time": start_time,
        "current_domain_type": facts.dom0.domain_type,
        "hvm": False,
    }


def first_pool(restrictions: Mapping[str, str]) -> dict[str, object]:
    """What the pool's record gets when it is made."""
    return {
        "name_label": "",
        "other_config": dict(MEMORY_RATIOS),
        "restrictions": dict(restrictions),
        "ha_enabled": False,
        "ha_cluster_stack": CLUSTER_STACK,
        "coordinator_bias": True,
    }


def pool_cpu_info(hosts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """pool.cpu_info from those of its hosts, the coordinator's first: sums of the counts, features that all have."""
    if not hosts:
        return {}
    sums = {
        key: str(sum(_number(one.get(key, "")) for one in hosts)) for key in ("cpu_count", "socket_count")
    }
    features = ("features_pv", "features_hvm", "features_pv_host", "features_hvm_host")
    shared = {key: common([one.get(key, "") for one in hosts]) for key in features}
    return {"vendor": hosts[0].get("vendor", ""), **sums, **shared}


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0
