"""other_config keys as typed values: every key of networking.md 1.6, and where a bad one is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.net import inet, keys
from hostagent.net.keys import NetworkKeys, PifKeys, StaticRoute

texts = st.text(max_size=40)
routes = st.text(alphabet="0123456789.,/: fda", max_size=60)


def test_every_key_of_a_pif():
    given_keys = {
        "defaultroute": "true",
        "peerdns": "true",
        "domain": "example.org, example.net",
        "mtu": "9000",
        "bond-miimon": "50",
        "bond-hashing-algorithm": "src_mac",
        "ethtool-autoneg": "off",
        "ethtool-speed": "1000",
        "ethtool-duplex": "full",
        "ethtool-advertise": "0x1020",
        **{f"ethtool-{name}": "on" for name in ("rx", "tx", "sg", "tso", "gso")},
        **{f"ethtool-{name}": "false" for name in ("gro", "lro", "ufo")},
        "vswitch-controller-fail-mode": "secure",
        "vlan-bug-workaround": "true",
        "anything": "else",
    }

    assert keys.of_pif(given_keys) == PifKeys(
        domain=("example.org", "example.net"),
        mtu=9000,
        bond={"miimon": "50", "hashing-algorithm": "src_mac"},
        link={"autoneg": "off", "speed": 1000, "duplex": "full", "advertise": 0x1020},
        features={**dict.fromkeys(("rx", "tx", "sg", "tso", "gso"), True), "gro": False, "lro": False},
    )
    keys.check_pif(given_keys)


def test_every_key_of_a_network():
    given_keys = {
        "static-routes": "10.8.0.0/16/10.1.1.254, fd08::/32/fe80::1",
        "mtu": "1400",
        "ethtool-tx": "off",
        "persist": "true",
        "is_guest_installer_network": "true",
        "is_host_internal_management_network": "true",
        "ip_begin": "172.30.0.1",
        "ip_end": "172.30.0.9",
        "netmask": "255.255.255.0",
        "assume_network_is_shared": "true",
        "automatic": "false",
    }

    assert keys.of_network(given_keys) == NetworkKeys(
        routes=(StaticRoute("10.8.0.0/16", "10.1.1.254"), StaticRoute("fd08::/32", "fe80::1")),
        mtu=1400,
        features={"tx": False},
        persist=True,
        host_internal=True,
        first="172.30.0.1",
        last="172.30.0.9",
        netmask="255.255.255.0",
    )
    keys.check_network(given_keys)


def test_nothing_said_is_nothing_set():
    assert keys.of_pif({}) == PifKeys()
    assert keys.of_network({"automatic": "false"}) == NetworkKeys()
    assert (NetworkKeys().first, NetworkKeys().netmask) == ("169.254.0.1", "255.255.0.0")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("defaultroute", "yes"),
        ("peerdns", "1"),
        ("mtu", "67"),
        ("mtu", "65536"),
        ("mtu", "9k"),
        ("ethtool-autoneg", "maybe"),
        ("ethtool-speed", "0"),
        ("ethtool-speed", "fast"),
        ("ethtool-duplex", "FULL DUPLEX"),
        ("ethtool-advertise", "0xzz"),
        ("ethtool-advertise", "0"),
        ("ethtool-gro", "2"),
    ],
)
def test_a_bad_key_of_a_pif_is_left_out_and_refused_when_it_is_set(key, value):
    read = keys.of_pif({key: value, "domain": "example.org"})

    assert read._replace(problems=()) == PifKeys(domain=("example.org",))
    assert [(problem.key, problem.value) for problem in read.problems] == [(key, value)]
    with pytest.raises(InvalidValueError) as caught:
        keys.check_pif({key: value})
    assert caught.value.params == (f"other_config:{key}", value)


@pytest.mark.parametrize(("key", "value"), [("ethtool-ufo", "on"), ("ethtool-colour", "red")])
def test_what_does_nothing_is_told_and_may_be_set(key, value):
    assert [problem.key for problem in keys.of_pif({key: value}).problems] == [key]
    keys.check_pif({key: value, "colour": "red"})
    keys.check_network({key: value, "colour": "red"})
    with pytest.raises(InvalidValueError, match="mtu"):
        keys.check_pif({key: value, "mtu": "9k"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("persist", "x"),
        ("ip_begin", "169.254.0"),
        ("ip_end", "fe80::9"),
        ("ip_end", "169.255.0.9"),
        ("ip_end", "169.254.0.0"),
        ("ip_end", "169.254.255.255"),
        ("netmask", "255.0.255.0"),
        ("mtu", "-1"),
    ],
)
def test_a_bad_key_of_a_network_is_left_out_and_refused_when_it_is_set(key, value):
    assert keys.of_network({key: value})._replace(problems=()) == NetworkKeys()
    with pytest.raises(InvalidValueError, match=key) as caught:
        keys.check_network({key: value})
    assert caught.value.params == (f"other_config:{key}", value)


@pytest.mark.parametrize(
    ("given_keys", "last"),
    [
        ({"ip_begin": "10.9.0.1"}, "10.9.255.254"),
        ({"ip_begin": "10.9.0.1", "netmask": "255.255.255.0"}, "10.9.0.254"),
        ({"ip_begin": "10.9.0.1", "netmask": "255.255.255.254"}, "10.9.0.1"),
        ({"ip_begin": "10.9.0.1", "netmask": "255.255.255.255"}, "10.9.0.1"),
        ({"ip_begin": "255.255.255.255"}, "255.255.255.255"),
        ({"ip_begin": "10.9.0.1", "ip_end": "10.9.0.1"}, "10.9.0.1"),
    ],
)
def test_the_range_of_the_internal_network_ends_with_its_subnet_unless_it_says_so(given_keys, last):
    assert keys.of_network(given_keys) == NetworkKeys(
        first=given_keys["ip_begin"], last=last, netmask=given_keys.get("netmask", "255.255.0.0")
    )
    keys.check_network(given_keys)


@pytest.mark.parametrize(
    ("element", "found"),
    [
        ("10.8.0.0/33/10.1.1.1", "prefix 33"),
        ("10.8.0.0/x/10.1.1.1", "prefix 'x' is no number"),
        ("10.8.0.0/16", "not of the form"),
        ("10.8.0/16/10.1.1.1", "is no address"),
        ("10.8.0.0/16/gate", "the gateway 'gate'"),
        ("10.8.0.0/16/fe80::1", "not of the same family"),
        ("0.0.0.0/0/10.1.1.1", "default route"),
        ("10.8.0.1/16/10.1.1.1", "did you mean 10.8.0.0/16"),
        ("10.7.0.0/16/10.1.1.2", "a second route"),
    ],
)
def test_a_bad_route_costs_itself_and_is_told_with_its_place(element, found):
    good, problems = keys.static_routes(f"10.7.0.0/16/10.1.1.1, {element},10.9.0.0/16/10.1.1.1")

    assert [route.destination for route in good] == ["10.7.0.0/16", "10.9.0.0/16"]
    assert [problem.key for problem in problems] == ["static-routes"]
    assert f"element 2 (column 23, {element!r}): " in problems[0].found
    assert found in problems[0].found


@given(
    st.dictionaries(
        st.sampled_from((*keys.PIF_KEYS, "ethtool-speed", "ethtool-advertise", "ethtool-tx")), texts
    )
)
def test_any_text_is_read_or_told(other_config):
    read = keys.of_pif(other_config)

    assert {problem.key for problem in read.problems} <= other_config.keys()
    assert 0 <= read.mtu <= keys.MTU_MOST
    assert all(isinstance(value, bool) for value in read.features.values())


@given(routes | texts)
def test_any_routes_are_what_ipaddress_says_or_told(text):
    good, problems = keys.static_routes(text)

    for route in good:
        network = ipaddress.ip_network(route.destination)
        assert str(network) == route.destination or ":" in route.destination
        assert ipaddress.ip_address(route.gateway).version == network.version
        assert network.prefixlen
    elements = [part for part in text.split(",") if part.strip()]
    assert len(good) + len(problems) == len(elements)


@given(st.dictionaries(st.sampled_from(sorted(keys.NETWORK_KEYS)), texts))
def test_any_network_text_is_read_or_told(other_config):
    read = keys.of_network(other_config)

    assert {problem.key for problem in read.problems} <= other_config.keys()
    assert inet.prefix_of(read.netmask) >= 0


# addresses as texts


@given(st.ip_addresses())
def test_an_address_has_one_form(value):
    text = inet.address(str(value))

    assert ipaddress.ip_address(text) == value
    assert inet.address(text) == text
    assert inet.number(text) == int(value)
    assert inet.family(text) == value.version


@given(st.text(alphabet="0123456789abcdef.:/x", max_size=20) | texts)
def test_what_is_no_address_is_none(text):
    try:
        ipaddress.ip_address(text)
        known = "%" not in text
    except ValueError:
        known = False

    assert bool(inet.address(text)) is known


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_netmasks_and_prefixes(value, prefix):
    network = ipaddress.ip_network((value, prefix), strict=False)

    assert inet.prefix_of(str(network.netmask)) == prefix
    assert inet.subnet(str(value), prefix) == str(network.network_address)
    assert inet.cidr(f"{value}/{prefix}") == (str(value), prefix)
    assert inet.contains(str(network.network_address), prefix, str(value))


@given(st.ip_addresses(v=4))
def test_a_netmask_is_ones_and_then_zeros(value):
    contiguous = "01" not in f"{int(value):032b}"

    assert (inet.prefix_of(str(value)) >= 0) is contiguous


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "fd00::/129", "/8", "10.0.0.1/8/9", "a/8"]
)
def test_what_is_no_cidr(text):
    assert inet.cidr(text) is None


def test_a_subnet_holds_only_its_own_family():
    assert not inet.contains("10.0.0.0", 0, "fd00::1")
    assert not inet.contains("10.0.0.0", 24, "10.0.1.0")
