"""The address of the last lease, for a client that takes it over only where it is there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import last_lease
from hostagent.net.devices import Address, Kernel
from tests.pure.net_dhcp import FOUND4
from tests.pure.net_host import link

BRIDGE = link(7, "xenbr0", "bridge")


def kernel(*addresses):
    return Kernel({7: BRIDGE}, tuple(Address(7, text, 24) for text in addresses))


def test_a_bridge_without_it_gets_it_for_as_long_as_a_client_needs_to_take_it_over():
    wanted = Address(7, "10.9.0.56", 24, valid_s=last_lease.LASTS_S)
    assert last_lease.missing("xenbr0", FOUND4, kernel("10.9.0.57")) == wanted


def test_a_bridge_that_has_it_is_left_alone():
    assert last_lease.missing("xenbr0", FOUND4, kernel("10.9.0.56")) is None


def test_without_lease_or_bridge_there_is_nothing_to_put():
    assert last_lease.missing("xenbr0", None, kernel()) is None
    assert last_lease.missing("xenbr1", FOUND4, kernel()) is None
    assert last_lease.missing("xenbr0", FOUND4._replace(addresses=()), kernel()) is None


@given(st.text())
def test_a_kept_lease_with_something_else_for_an_address_puts_nothing(text):
    found = last_lease.missing("xenbr0", FOUND4._replace(addresses=(text,)), kernel())
    assert found is None or "/" in text
