"""What happens to links, addresses and routes is told, in a network namespace of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.devices import Address, Link, Route
from hostagent.net.follow import Follower
from tests.netns.netlink_links import BRIDGE, SOON_S, A, add, change, ip, link

if TYPE_CHECKING:
    from hostagent.net.netlink import Netlink


def test_what_happens_is_told_in_order(netlink: Netlink) -> None:
    with Follower() as follower:
        assert follower.read() == []
        netlink.execute([BRIDGE])
        ip("addr", "add", "192.0.2.1/24", "dev", "xapi1")
        ip("route", "add", "default", "via", "192.0.2.254")
        ip("link", "del", "xapi1")

        assert follower.wait(SOON_S)
        events = follower.read()
        assert events is not None

    kinds = [(event.gone, type(event.what)) for event in events]
    assert kinds[0] == (False, Link)
    assert isinstance(events[0].what, Link)
    assert (events[0].what.name, events[0].what.ifindex) == ("xapi1", A)
    assert (False, Address) in kinds
    assert any(event.what == Route(A, "default4", "192.0.2.254", 3) for event in events if not event.gone)
    assert [event.what.name for event in events if event.gone and isinstance(event.what, Link)] == ["xapi1"]


def test_a_port_that_leaves_is_still_there(netlink: Netlink) -> None:
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    port = link(netlink, "veth0").ifindex
    netlink.execute([BRIDGE, change("link-set", "veth0", port, master=A)])
    with Follower() as follower:
        netlink.execute([change("link-set", "veth0", port, master=0)])
        assert follower.wait(SOON_S)
        events = follower.read() or []

    of_port = [event for event in events if isinstance(event.what, Link) and event.what.ifindex == port]
    assert of_port
    assert not any(event.gone for event in of_port)
    assert isinstance(of_port[-1].what, Link)
    assert of_port[-1].what.master == 0


def test_who_reads_too_late_is_told_and_then_hears_again(netlink: Netlink) -> None:
    with Follower(receive_bytes=4096) as follower:
        netlink.execute([add(f"b{i}", A + i) for i in range(50)])
        assert follower.read() is None

        netlink.execute([add("last", A + 50)])
        names = [event.what.name for event in follower.read() or [] if isinstance(event.what, Link)]
        assert names[:1] == ["last"]
        assert len(netlink.look().links) == 52
