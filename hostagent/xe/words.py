"""Where xe's words are not the API's: names of classes and fields, values of enums, default columns.

Facts of the stock program's output, which scripts compare with; what is not here follows from the data model
(xenapi.md 6.3, 6.4).
"""

from __future__ import annotations

CLASS_NAMES = {
    "VM_appliance": "appliance",
    "pool_patch": "patch",
    "pool_update": "update",
    "DR_task": "drtask",
    "Host_driver": "hostdriver",
    "Driver_variant": "hostdriver-variant",
}
"""Classes that xe names otherwise than in lower case with dashes."""

FIELD_NAMES = {
    ("GPU_group", "PGPUs"): "PGPU-uuids",
    ("GPU_group", "VGPUs"): "VGPU-uuids",
    ("PIF", "VLAN_master_of"): "vlan-master-of",
    ("PIF", "VLAN_slave_of"): "vlan-slave-of",
    ("PIF", "ip_configuration_mode"): "IP-configuration-mode",
    ("PIF", "ipv6_configuration_mode"): "IPv6-configuration-mode",
    ("PIF", "ipv6_gateway"): "IPv6-gateway",
    ("VBD", "qos_algorithm_params"): "qos_algorithm_params",
    ("VBD", "qos_algorithm_type"): "qos_algorithm_type",
    ("VBD", "qos_supported_algorithms"): "qos_supported_algorithms",
    ("VDI", "VBDs"): "vbd-uuids",
    ("VDI", "crash_dumps"): "crashdump-uuids",
    ("VIF", "qos_algorithm_params"): "qos_algorithm_params",
    ("VIF", "qos_algorithm_type"): "qos_algorithm_type",
    ("VIF", "qos_supported_algorithms"): "qos_supported_algorithms",
    ("VM", "VTPMs"): "vtpms",
    ("VM", "consoles"): "console-uuids",
    ("VM", "domid"): "dom-id",
    ("VM", "last_booted_record"): "last-boot-record",
    ("VM", "suspend_SR"): "suspend-SR-uuid",
    ("VM", "suspend_VDI"): "suspend-VDI-uuid",
    ("host", "control_domain"): "control-domain-uuid",
    ("host", "cpu_info"): "cpu_info",
    ("host", "crash_dump_sr"): "crash-dump-sr-uuid",
    ("host", "guest_VCPUs_params"): "guest_VCPUs_params",
    ("host", "https_only"): "https_only",
    ("host", "iscsi_iqn"): "iscsi_iqn",
    ("host", "resident_VMs"): "resident-vms",
    ("host", "suspend_image_sr"): "suspend-image-sr-uuid",
    ("message", "cls"): "class",
    ("network", "PIFs"): "PIF-uuids",
    ("network", "VIFs"): "VIF-uuids",
    ("pool", "cpu_info"): "cpu_info",
    ("role", "name_description"): "description",
    ("role", "name_label"): "name",
    ("task", "allowed_operations"): "allowed_operations",
    ("task", "current_operations"): "current_operations",
    ("task", "error_info"): "error_info",
    ("task", "subtask_of"): "subtask_of",
}
"""Fields that xe names otherwise than the API with dashes; that name is understood as well."""

LINKED = {
    "PIF": {
        "metrics": "carrier vendor_id vendor_name device_id device_name speed duplex pci_bus_path",
    },
    "host": {"metrics": "memory_total memory_free live"},
    "VM": {
        "metrics": "memory_actual hvm nomigrate nested_virt current_domain_type start_time install_time VCPUs_number",
        "guest_metrics": (
            "os_version PV_drivers_version PV_drivers_up_to_date memory disks networks PV_drivers_detected other "
            "live last_updated can_use_hotplug_vbd can_use_hotplug_vif"
        ),
    },
}
"""Class → link → fields of the object it leads to that xe shows as columns of the class."""
LINKED_NAMES = {
    ("host_metrics", "live"): "host-metrics-live",
    ("VM_guest_metrics", "last_updated"): "guest-metrics-last-updated",
}

DEFAULTS = {
    "bond": "uuid master slaves",
    "certificate": "uuid name type host-uuid not-before not-after fingerprint",
    "console": "uuid vm-uuid vm-name-label protocol location",
    "host": "uuid name-label name-description",
    "host-cpu": "uuid number vendor speed utilisation",
    "host-crashdump": "uuid timestamp size",
    "network": "uuid name-label name-description bridge",
    "pbd": "uuid host-uuid sr-uuid device-config currently-attached",
    "pci": "uuid vendor-name device-name pci-id",
    "pif": "uuid device MAC currently-attached VLAN network-uuid host-uuid",
    "pool": "uuid name-label name-description master default-SR",
    "role": "uuid name description",
    "secret": "uuid",  # what it keeps is shown to who asks for it
    "sm": "uuid name-label name-description type vendor copyright configuration",
    "snapshot": "uuid name-label name-description is-vmss-snapshot",
    "sr": "uuid name-label name-description host type content-type",
    "task": "uuid name-label name-description status progress",
    "template": "uuid name-label name-description",
    "tunnel": "uuid access-PIF transport-PIF status",
    "vbd": "uuid vm-uuid vm-name-label vdi-uuid empty device",
    "vdi": "uuid name-label name-description sr-uuid virtual-size sharable read-only",
    "vif": "uuid vm-uuid device network-uuid",
    "vlan": "uuid tagged-PIF untagged-PIF tag",
    "vm": "uuid name-label power-state",
}
"""What a list shows unless told otherwise."""
SHOWN_WHOLE = ("message", "appliance", "drtask")
"""Classes whose lists show all columns unless told otherwise."""

COMMA_FIELDS = frozenset(
    {
        ("SM", "required_cluster_stack"),
        ("host", "patches"),
        ("host", "updates"),
        ("network", "purpose"),
        ("pool_patch", "after_apply_guidance"),
        ("pool_update", "after_apply_guidance"),
        ("pool_update", "hosts"),
    }
    | {(cls, "tags") for cls in ("VM", "VDI", "SR", "host", "network", "pool")}
)
"""Sets whose members xe separates with commas, others with semicolons."""

_OPERATIONS = (
    "create introduce destroy resize clone snapshot mirror enable_cbt disable_cbt set_on_boot data_destroy "
    "list_changed_blocks"
)
ENUM_WORDS: dict[str, dict[str, str]] = {
    "allocation_algorithm": {"breadth_first": "breadth-first", "depth_first": "depth-first"},
    "console_protocol": {"vt100": "VT100", "rfb": "RFB", "rdp": "RDP"},
    "domain_type": {"pv_in_pvh": "pv-in-pvh"},
    "host_allowed_operations": {f"vm_{word}": f"VM.{word}" for word in ("start", "resume", "migrate")},
    "on_crash_behaviour": {
        "destroy": "Destroy",
        "coredump_and_destroy": "Core dump and destroy",
        "restart": "Restart",
        "coredump_and_restart": "Core dump and restart",
        "preserve": "Preserve",
        "rename_restart": "Rename restart",
    },
    "on_normal_exit": {"destroy": "Destroy", "restart": "Restart"},
    "on_softreboot_behavior": {
        "soft_reboot": "Soft reboot",
        "destroy": "Destroy",
        "restart": "Restart",
        "preserve": "Preserve",
    },
    "pvs_proxy_status": {
        "incompatible_write_cache_mode": "incompatible-write-cache-mode",
        "incompatible_protocol_version": "incompatible-protocol-version",
    },
    "storage_operations": {
        **{f"vdi_{word}": f"VDI.{word}" for word in _OPERATIONS.split()},
        "pbd_create": "PBD.create",
        "pbd_destroy": "PBD.destroy",
    },
    "task_allowed_operations": {"cancel": "Cancel", "destroy": "Destroy"},
    "tristate_type": {"yes": "true", "no": "false"},
    "vdi_type": {
        "system": "System",
        "user": "User",
        "ephemeral": "Ephemeral",
        "suspend": "Suspend",
        "crashdump": "Crashdump",
        "ha_statefile": "HA statefile",
        "metadata": "Metadata",
        "redo_log": "Redo log",
        "pvs_cache": "PVS cache",
        "cbt_metadata": "CBT metadata",
    },
    "vm_power_state": {
        "Halted": "halted",
        "Paused": "paused",
        "Running": "running",
        "Suspended": "suspended",
    },
}
"""Enum → the API's word → the word that xe prints for it. Others are printed as they are."""


def shown(enum: str, word: str) -> str:
    """What xe prints for a value of an enum."""
    return ENUM_WORDS.get(enum, {}).get(word, word)


def means(enum: str, word: str, text: str) -> bool:
    """Does `text`, whatever its case, mean that value of an enum? xe's word does, and the API's."""
    return text.lower() in (word.lower(), shown(enum, word).lower())
