"""What a plan is made of: operations on the kernel, each with what undoes it. They are data: a journal holds them.

Verbs and their `args` (all JSON values):

  link-add    kind, index, and any of: mac, mtu, master, lower, group, up, vlan_id, settings
  link-set    any of: up, mac, mtu, master (0: none), group, settings, addrgen; altname, altname_gone
  link-del
  group-del   group: deletes all VLANs that were put into it
  address-add, address-del     text, prefix; flags, valid_s where it is not a permanent one; address-add replaces
  route-add, route-del         destination, gateway, protocol, metric; route-add replaces
  sysctl      path (below /proc/sys), value
  ethtool     link, features (as `devices.Device`)
  lease-start, lease-stop      as `devices.Lease`
  dns         the content of resolv.conf before and after; bridge, under which systemd-resolved has it
  file        path, content (None: there is to be none); of one that undoes a change of a file also `instead`, what that
              made it hold, and `decides` of the one file that says at a boot whose a card is
  foreign     daemon, what: something to tell a network daemon about the device; not after a reboot
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Value: TypeAlias = "int | str | bool | Mapping[str, int | str | bool] | None"


class Operation(NamedTuple):
    verb: str
    device: str
    ifindex: int
    args: Mapping[str, Value] = {}


class Step(NamedTuple):
    """One operation and the operations, in order, that undo it."""

    do: Operation
    undo: tuple[Operation, ...]
    serves: tuple[str, ...] = ()
    """References of the PIFs and networks it is done for."""


class Plan(NamedTuple):
    """Ordered steps; what could cut the way to those who asked for it stands as late as it can."""

    steps: tuple[Step, ...]
