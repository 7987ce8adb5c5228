"""What is wanted of the kernel, for any records of a host."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from hostagent.net.finding import STOP, FindingError
from hostagent.net.model import survey, want
from tests.pure.net_records import Change, changes
from tests.pure.net_wanted import by_name


def check_any(change: Change) -> None:
    found = survey(
        change.records, change.up, down=change.down, becoming_management=change.becoming_management
    )
    wanted = found.wanted
    devices = by_name(wanted)
    assert len(devices) == len(wanted.devices)
    assert not devices.keys() & set(wanted.gone)
    assert len(set(wanted.gone)) == len(wanted.gone)
    seen: set[str] = set()
    for device in wanted.devices:
        assert 0 < len(device.name.encode()) <= 15
        assert device.serves
        if device.lower in devices:
            assert device.lower in seen
            assert device.mtu <= devices[device.lower].mtu
        if device.master:
            assert device.master in seen
        seen.add(device.name)
    slaves = {
        device.name for device in wanted.devices if device.master and devices[device.master].kind == "bond"
    }
    assert not slaves & {device.lower for device in wanted.devices}
    ipv6 = {device.name for device in wanted.devices if device.ipv6 != "off"}
    carrying = {device.master for device in wanted.devices} | {
        device.name for device in wanted.devices if not device.master
    }
    assert ipv6 <= carrying
    assert {address.device for address in wanted.addresses} <= ipv6
    assert {lease.device for lease in wanted.leases} <= ipv6
    destinations = [route.destination for route in wanted.routes]
    assert len(set(destinations)) == len(destinations)
    assert len([route for route in wanted.routes if route.destination == "default4"]) <= 1
    for family in (4, 6):
        owners = [lease.device for lease in wanted.leases if lease.gateway and lease.family == family]
        assert len(owners) + (f"default{family}" in destinations) <= 1
    assert sum(lease.dns for lease in wanted.leases) + (wanted.dns is not None) <= 1


@given(changes())
def test_any_host_has_devices_in_order_names_that_fit_and_one_owner_of_everything(change):
    check_any(change)


@given(changes())
def test_every_pif_asked_for_is_served_or_stopped_or_displaced_nothing(change):
    found = survey(
        change.records, change.up, down=change.down, becoming_management=change.becoming_management
    )
    stopped = {ref for finding in found.findings if finding.severity == STOP for ref in finding.refs}
    served = {ref for device in found.wanted.devices for ref in device.serves}

    for ref in change.up:
        managed_by_others = not change.records.networks[change.records.pifs[ref].network].managed
        assert ref in served or ref in stopped or managed_by_others
        assert not (
            ref in stopped
            and ref in found.chains.attached
            and not change.records.pifs[ref].currently_attached
        )


@given(changes())
def test_want_raises_exactly_when_something_stops(change):
    arguments: dict[str, Any] = {"down": change.down, "becoming_management": change.becoming_management}
    found = survey(change.records, change.up, **arguments)

    if any(finding.severity == STOP for finding in found.findings):
        with pytest.raises(FindingError):
            want(change.records, change.up, **arguments)
    else:
        assert want(change.records, change.up, **arguments) == found.wanted
