"""A change without a daemon takes nobody's address, and tells the neighbours."""

from __future__ import annotations

import pytest

from hostagent.net import bring, cache, reachable
from hostagent.net.former import cleared
from hostagent.net.probe import ProbeError
from hostagent.net.records import Network, Pif
from tests.pure.net_care import GATEWAY, OTHER, Careful, readdressed
from tests.pure.net_machine import records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Careful(tmp_path)


# addresses


def test_an_address_of_another_host_stops_a_change_before_anything_is_touched(machine):
    machine.up()
    machine.segment.held["192.0.2.77"] = OTHER
    done = machine.kernel.done

    with pytest.raises(reachable.ConflictError, match=f"another host, {OTHER}, has 192.0.2.77") as caught:
        machine.up(which=readdressed())

    assert caught.value.code == "PIF_CONFIGURATION_ERROR"
    assert machine.kernel.done == done


def test_where_it_cannot_be_asked_before_it_is_asked_after_and_undone(machine):
    before = set(machine.kernel.look().by_name())
    machine.segment.held["192.0.2.10"] = OTHER

    result = machine.up()

    assert result["outcome"] == "rolled-back"
    assert OTHER in result["error"]["found"]
    assert set(machine.kernel.look().by_name()) == before


def test_at_boot_the_address_is_taken_and_the_other_host_told(machine):
    machine.segment.held["192.0.2.10"] = OTHER

    result = machine.up(boot=True)

    assert (result["outcome"], result["told"]) == ("degraded", [f"another host, {OTHER}, has 192.0.2.10"])
    assert [one.text for one in machine.kernel.look().addresses] == ["192.0.2.10"]


def test_each_new_address_is_asked_for_once_and_old_ones_never(machine):
    machine.up()
    assert machine.segment.asked.count("who has 192.0.2.10") == 1
    machine.segment.asked.clear()

    machine.up(which=readdressed())

    assert [one for one in machine.segment.asked if one.startswith("who")] == ["who has 192.0.2.77"]


def test_what_was_changed_is_announced_and_what_was_not_is_not(machine):
    machine.up()
    assert machine.segment.announced == [("xenbr0", ("192.0.2.10",))]

    machine.up()

    assert len(machine.segment.announced) == 1


def test_an_announcement_that_fails_is_told(machine):
    def fail(device, addresses):
        raise ProbeError("no carrier", hint="")

    machine.segment.announce = fail

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("degraded", ["192.0.2.10 not announced: no carrier"])


# a move


def two():
    """Management on eth0, and eth1 in the same subnet."""
    given = records()
    other = Pif("new", "uuid-new", "eth1", "n1", mac="52:54:00:00:00:02", physical=True, ip_mode="Static",
                ip="192.0.2.20", netmask="255.255.255.0", gateway=GATEWAY)  # fmt: skip
    networks = {**given.networks, "n1": Network("n1", "uuid-n1", "two", "xenbr1")}
    return given._replace(pifs={**given.pifs, "new": other}, networks=networks)


def moved(machine, **request):
    machine.kernel.nic("eth1", 3)
    machine.kernel.links[3].mac = machine.kernel.links[3].permanent_mac = "52:54:00:00:00:02"
    cache.write(machine.folder, two())
    machine.up()
    asked = bring.Request("up", "new", management=True, **request)
    result = bring.bring(asked, cache.read(machine.folder), machine.host())
    kernel = machine.kernel.look()
    return result, {(kernel.links[one.device].name, one.text) for one in kernel.addresses}


def test_a_move_within_a_subnet_clears_the_former_address(machine):
    result, addresses = moved(machine)

    assert addresses == {("xenbr1", "192.0.2.20")}
    assert any("loses 192.0.2.10 (hint: --keep-old" in told for told in result["told"])
    assert result["outcome"] == "changed"


def test_keep_old_keeps_it(machine):
    result, addresses = moved(machine, keep_old=True)

    assert addresses == {("xenbr0", "192.0.2.10"), ("xenbr1", "192.0.2.20")}
    assert not any("--keep-old" in told for told in result["told"])


def test_another_subnet_keeps_its_address():
    given = two()
    nic = given.pifs["nic"]._replace(currently_attached=True, ipv6_mode="Static", ipv6=("2001:db8::1/64",))
    given = given._replace(pifs={**given.pifs, "nic": nic})
    elsewhere = given.pifs["new"]._replace(ip="198.51.100.1", ipv6_mode="Static", ipv6=("2001:db8::2/32",))

    now, changed, told = cleared(given, elsewhere)

    assert changed == ("nic",)
    assert (now.pifs["nic"].ip, now.pifs["nic"].ipv6) == ("192.0.2.10", ())
    assert "loses 2001:db8::1/64 (" in told[0]
