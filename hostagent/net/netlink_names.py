"""Settings of bridges and bonds by the kernel's names: the attribute that carries each, and its format.

Names are those of `ip -d link` and of the netlink attributes, in lower case; units are the kernel's: of a bridge
1/100 s, of a bond milliseconds, `primary` and `active_slave` are indexes (linux/if_link.h, IFLA_BR_* and IFLA_BOND_*).
The kernel keeps times of bridges in its own ticks: 12345 comes back as 12344 where a tick is 4 ms.
A name is a bridge's or a bond's, never both: the names alone say which of the two a message is about.

Only what we set or check is here, because every entry is read for every bridge of every look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Settings: TypeAlias = "Mapping[str, tuple[int, str]]"
"""name -> (attribute number, `struct` format of its value)."""

BRIDGE_SETTINGS: Settings = {
    "forward_delay": (1, "I"),
    "hello_time": (2, "I"),
    "max_age": (3, "I"),
    "ageing_time": (4, "I"),
    "stp_state": (5, "I"),
    "priority": (6, "H"),
    "vlan_filtering": (7, "B"),
    "group_fwd_mask": (9, "H"),
    "mcast_snooping": (23, "B"),
    "mcast_querier": (25, "B"),
    "nf_call_iptables": (36, "B"),
    "nf_call_ip6tables": (37, "B"),
    "nf_call_arptables": (38, "B"),
    "vlan_default_pvid": (39, "H"),
}

BOND_SETTINGS: Settings = {
    "mode": (1, "B"),
    "active_slave": (2, "I"),
    "miimon": (3, "I"),
    "updelay": (4, "I"),
    "downdelay": (5, "I"),
    "use_carrier": (6, "B"),
    "arp_interval": (7, "I"),
    "arp_validate": (9, "I"),
    "arp_all_targets": (10, "I"),
    "primary": (11, "I"),
    "primary_reselect": (12, "B"),
    "fail_over_mac": (13, "B"),
    "xmit_hash_policy": (14, "B"),
    "resend_igmp": (15, "I"),
    "num_peer_notif": (16, "B"),
    "all_slaves_active": (17, "B"),
    "min_links": (18, "I"),
    "lp_interval": (19, "I"),
    "packets_per_slave": (20, "I"),
    "ad_lacp_rate": (21, "B"),
    "ad_select": (22, "B"),
    "ad_actor_sys_prio": (24, "H"),
    "ad_user_port_key": (25, "H"),
    "tlb_dynamic_lb": (27, "B"),
    "peer_notif_delay": (28, "I"),
    "ad_lacp_active": (29, "B"),
    "missed_max": (30, "B"),
}

IPV6_SETTINGS: Mapping[str, int] = {"accept_ra": 3, "autoconf": 5, "accept_ra_defrtr": 17, "disable_ipv6": 26}
"""What a device tells of IPv6 in IFLA_INET6_CONF: name of the file below net/ipv6/conf -> place in that array of 32-bit
numbers (DEVCONF_* of linux/ipv6.h, where a place once given stays)."""

BOND_PORT: Mapping[str, int] = {
    "state": 1,
    "mii_status": 2,
    "link_failure_count": 3,
    "ad_aggregator_id": 6,
    "ad_actor_state": 7,
    "ad_partner_state": 8,
}
"""What a port of a bond tells (IFLA_BOND_SLAVE_*): name -> attribute number. The two `ad_…_state` are the LACP state
bits of IEEE 802.1AX; the kernel sends them in mode 802.3ad only."""
