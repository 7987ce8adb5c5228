"""DHCP: the lease, as the client prints it and as it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import dhcp_lease
from hostagent.net.dhcp_lease import Leased
from tests.pure.net_dhcp import CARRIER, FOUND4, LEASE4, LEASE6


def test_a_lease_is_read():
    assert dhcp_lease.parse_lease(LEASE4, 4) == FOUND4
    assert dhcp_lease.parse_lease(LEASE6, 6) == Leased(
        6,
        "BOUND6",
        ("fd09::1cc/128",),
        dns=("fd09::53",),
        search=("six.example",),
        server="000100013294f0029ede1f21e2fb",
        lease_s=7200,
    )


def test_all_families_at_once_are_kept_apart():
    both = CARRIER + LEASE4 + "\n" + LEASE6

    assert dhcp_lease.parse_lease(both, 4) == FOUND4
    found = dhcp_lease.parse_lease(both, 6)
    assert found is not None
    assert found.addresses == ("fd09::1cc/128",)


@pytest.mark.parametrize(
    "text", ["", CARRIER, LEASE4.replace("BOUND", "EXPIRE"), LEASE4.replace("ip_address", "x")]
)
def test_what_is_no_lease_in_use_is_none(text):
    assert dhcp_lease.parse_lease(text, 4) is None


def test_the_last_lease_in_use_for_want_of_a_server_is_stale():
    found = dhcp_lease.parse_lease(LEASE4.replace("BOUND", "TIMEOUT"), 4)

    assert found is not None
    assert found.stale
    assert not FOUND4.stale


@given(st.text(), st.sampled_from([4, 6]))
def test_no_text_breaks_the_reader(text, family):
    found = dhcp_lease.parse_lease(f"reason=BOUND\nreason=BOUND6\n{text}", family)

    assert found is None or found.addresses


def test_the_last_lease_is_kept_and_stale_ones_do_not_replace_it(tmp_path):
    dhcp_lease.keep_last("xenbr0", FOUND4, tmp_path)
    dhcp_lease.keep_last("xenbr0", FOUND4._replace(reason="TIMEOUT", addresses=("10.9.0.1/24",)), tmp_path)

    assert dhcp_lease.last("xenbr0", 4, tmp_path) == FOUND4
    assert dhcp_lease.last("xenbr0", 6, tmp_path) is None
    assert dhcp_lease.last("xenbr1", 4, tmp_path) is None


@given(
    st.one_of(
        st.text(),
        st.sampled_from(
            ["{}", "null", "[4]", '{"family": 4}', '{"family": 4, "addresses": [], "reason": 1}']
        ),
    )
)
def test_a_damaged_file_is_as_none(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("state")
    file = dhcp_lease.last_file("xenbr0", 4, folder)
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8", errors="surrogatepass")

    assert dhcp_lease.last("xenbr0", 4, folder) is None
