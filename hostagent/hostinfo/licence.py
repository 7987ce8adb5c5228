"""The licence record that clients read: nothing is licensed here, so nothing is restricted.

Clients switch features on and off by these keys, and expect a complete map (startup-and-pool-join.md S9). They say
what a licence forbids, not what is built: a call that is not built answers NOT_IMPLEMENTED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EDITION = "free/libre"
POOLING = "restrict_pooling"
RESTRICTIONS = (
    "ad",
    "cbt",
    "certificate_verification",
    "checkpoint",
    "connection",
    "corosync",
    "cpu_masking",
    "dmc",
    "dr",
    "email_alerting",
    "equalogic",
    "gpu",
    "guest_agent_auto_update",
    "guest_ip_setting",
    "historical_performance",
    "igmp_snooping",
    "integrated_gpu_passthrough",
    "intellicache",
    "internal_repo_access",
    "live_patching",
    "marathon",
    "nested_virt",
    "netapp",
    "network_sriov",
    "pci_device_for_auto_update",
    "pool_attached_storage",
    "pool_secret_rotation",
    "pool_size",
    "pooling",
    "pvs_proxy",
    "qos",
    "rbac",
    "rpu",
    "set_vcpus_number_live",
    "storage_xen_motion",
    "updates",
    "usb_passthrough",
    "vgpu",
    "vif_locking",
    "vlan",
    "vm_groups",
    "vmpr",
    "vmss",
    "vss",
    "vtpm",
    "wlb",
    "xen_motion",
    "zstd_export",
)
FLAGS = {"enable_xha": "false", "platform_filter": "false", "regular_nag_dialog": "false"}
"""Keys of another form: whether HA is there (it is not), and two nuisances that are off."""


def features() -> dict[str, str]:
    """The feature switches, as host.license_params and pool.restrictions have them."""
    return {**{f"restrict_{name}": "false" for name in RESTRICTIONS}, **FLAGS}


def of_host() -> dict[str, object]:
    """The fields of a host that tell its licence."""
    return {"edition": EDITION, "editions": [EDITION], "license_params": features()}


def of_pool(hosts: list[Mapping[str, str]]) -> dict[str, str]:
    """What is restricted in a pool: whatever is on any of its hosts; a switch that allows must be on at all of them."""
    keys = sorted({key for params in hosts for key in params if key in features()})
    return {key: _combined(key, [params.get(key, "false") for params in hosts]) for key in keys}


def _combined(key: str, values: list[str]) -> str:
    allows = key.startswith("enable_")
    on = all(value == "true" for value in values) if allows else any(value == "true" for value in values)
    return "true" if on else "false"


def forbids_pooling(restrictions: Mapping[str, str]) -> bool:
    """Whether a licence forbids hosts of a pool to be more than one."""
    return restrictions.get(POOLING) == "true"
