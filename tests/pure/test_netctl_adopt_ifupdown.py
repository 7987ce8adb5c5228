"""A card that ifupdown has is taken over and given back: its stanza, its DHCP client, and other cards of the file."""

from __future__ import annotations

import json

import pytest

from hostagent.errors import HostagentError
from hostagent.net.adopt_files import comment_out
from hostagent.net.verify import FOREVER
from hostagent.netctl.adopt import take
from hostagent.netctl.adopt_back import release
from hostagent.netctl.adopt_place import Request
from tests.pure import adopt_host
from tests.pure.adopt_host import INTERFACES, Host


@pytest.fixture
def site(tmp_path):
    with adopt_host.stock(tmp_path) as found:
        yield found


def test_ifupdown_gives_it_up_and_no_ifdown_runs(tmp_path, site):
    host = Host(tmp_path, site.db)
    host.put("/etc/network/interfaces", INTERFACES)
    take(host.place, Request("eth0"))
    content = host.files()["etc/network/interfaces"]
    assert "#hostagent# iface eth0 inet static" in content
    assert "\nauto lo\n" in content
    assert host.said == [("ifupdown", "let-go", "eth0")]
    assert host.at_boot() == []
    release(host.place, Request("eth0"))
    assert host.files()["etc/network/interfaces"] == INTERFACES


def test_another_card_of_the_same_interfaces_file_stays_ours_when_one_is_given_back(tmp_path, site):
    host = Host(tmp_path, site.db)
    other = "auto eth1\niface eth1 inet static\n    address 198.51.100.1/24\n"
    host.put("/etc/network/interfaces", INTERFACES + other)
    take(host.place, Request("eth0"))
    before = host.files()["etc/network/interfaces"]
    after = comment_out(before, "eth1")[0]
    host.put("/etc/network/interfaces", after)
    files = [["/etc/network/interfaces", before, after]]
    note = {"nic": "eth1", "bridge": "xenbr1", "daemon": "ifupdown", "files": files}
    (host.state / "net/adopted/eth1.json").write_text(json.dumps(note))
    release(host.place, Request("eth0"))
    assert host.files()["etc/network/interfaces"] == INTERFACES + comment_out(other, "eth1")[0]


def test_what_comes_back_to_ifupdowns_dhcp_client_does_not_end_with_the_former_lease(tmp_path, site):
    """Its dhclient leaves the lifetime of an address that it finds as it is until it renews."""
    host = Host(tmp_path, site.db, dhcp=True)
    host.put("/etc/network/interfaces", "iface eth0 inet dhcp\n")
    host.given = ""
    with pytest.raises(HostagentError):
        take(host.place, Request("eth0"))
    assert [one.valid_s for one in host.kernel.look().addresses] == [FOREVER]
    host.do("address-add", {"text": "192.0.2.10", "prefix": 24, "valid_s": 3000, "flags": 0x0})
    host.given = "192.0.2.10"
    take(host.place, Request("eth0"))
    assert host.addresses() == {("xenbr0", "192.0.2.10", 24)}
    assert [one.valid_s for one in host.kernel.look().addresses] == [3000]
    release(host.place, Request("eth0"))
    assert host.addresses() == {("eth0", "192.0.2.10", 24)}
    assert [one.valid_s for one in host.kernel.look().addresses] == [FOREVER]
