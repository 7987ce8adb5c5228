"""The cache that the host boots from: whole or not used, two generations, and the old XML form."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.net import cache
from hostagent.net.cache import Cached, CacheError, Position
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

words = st.text(max_size=12)
maps = st.dictionaries(words, words, max_size=3)


def some(cls, **given):
    """Any record of a class, by its annotations."""
    kinds = {
        "str": words,
        "int": st.integers(-1, 1 << 40),
        "bool": st.booleans(),
        "tuple[str, ...]": st.lists(words, max_size=3).map(tuple),
        "Mapping[str, str]": maps,
    }
    fields = {
        name: kinds[kind if isinstance(kind, str) else kind.__forward_arg__]
        for name, kind in cls.__annotations__.items()
    }
    return st.builds(cls, **{**fields, **given})


def by_ref(cls):
    return st.lists(some(cls), max_size=4, unique_by=lambda one: one.ref).map(
        lambda found: {one.ref: one for one in found}
    )


every_records = st.builds(
    Records,
    host_uuid=words,
    pifs=by_ref(Pif),
    networks=by_ref(Network),
    bonds=by_ref(Bond),
    vlans=by_ref(Vlan),
    bridge=words,
    pool_other_config=maps,
)
generations = st.builds(
    Cached,
    every_records,
    st.integers(1, 1 << 40),
    st.booleans(),
    st.lists(some(Position), max_size=3).map(tuple),
)


def records(mtu=1500, host="host-1"):
    pif = Pif("pif", "pif-uuid", "eth0", "net", mac="52:54:00:00:00:01", physical=True, management=True)
    network = Network("net", "net-uuid", "LAN", "xenbr0", mtu=mtu)
    return Records(host, {"pif": pif}, {"net": network}, {}, {}, "xenbr0")


@settings(max_examples=40)
@given(generations)
def test_what_is_written_is_read(cached):
    data = cache.encode(cached)

    assert cache.decode(data) == cached
    assert json.loads(data)["content"]["generation"] == cached.generation


@settings(max_examples=40)
@given(generations, st.data())
def test_a_changed_byte_is_seen(cached, data):
    whole = bytearray(cache.encode(cached))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(CacheError):
        cache.decode(bytes(whole))


@settings(max_examples=40)
@given(generations, st.data())
def test_what_is_cut_off_is_not_used(cached, data):
    whole = cache.encode(cached)

    with pytest.raises(CacheError):
        cache.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
def test_content_of_another_type_is_refused_although_its_checksum_fits(data):
    content = json.loads(cache.encode(Cached(records(), 7)))["content"]
    name = data.draw(st.sampled_from(sorted(content)))
    content[name] = data.draw(json_values)
    inner = json.dumps(content).encode()
    whole = b'{"schema":1,"checksum":"%08x","content":%s}\n' % (zlib.crc32(inner), inner)

    try:
        found = cache.decode(whole)
    except CacheError:
        return
    assert isinstance(found.generation, int)
    assert all(isinstance(pif, Pif) for pif in found.records.pifs.values())


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(data):
    with pytest.raises(CacheError, match=r"is not whole|does not begin|has schema"):
        cache.decode(data)


def test_a_newer_schema_is_not_guessed_at():
    newer = cache.encode(Cached(records(), 1)).replace(b'"schema":1', b'"schema":2')

    with pytest.raises(CacheError, match="has schema 2, and this version knows 1"):
        cache.decode(newer)


def test_each_change_is_a_generation_and_no_change_is_none(tmp_path):
    first = cache.write(tmp_path, records())
    same = cache.write(tmp_path, records())
    second = cache.write(tmp_path, records(mtu=9000))

    assert (first.generation, same, second.generation) == (1, first, 2)
    assert cache.read(tmp_path) == cache.Found(second)
    assert (tmp_path / cache.NEWEST).stat().st_mode & 0o777 == 0o600


def test_the_verified_generation_stays_when_newer_ones_come(tmp_path):
    good = cache.mark_verified(tmp_path, cache.write(tmp_path, records()))
    cache.write(tmp_path, records(mtu=9000))

    assert cache.read_verified(tmp_path) == good
    assert not cache.read(tmp_path).cached.verified


def test_the_same_network_verified_later_only_gets_the_mark(tmp_path):
    cache.write(tmp_path, records())

    marked = cache.write(tmp_path, records(), verified=True)

    assert (marked.generation, marked.verified) == (1, True)
    assert cache.read_verified(tmp_path) == marked


def test_a_damaged_newest_one_is_set_aside_and_the_verified_one_used(tmp_path):
    cache.write(tmp_path, records(), verified=True)
    cache.write(tmp_path, records(mtu=9000))
    path = tmp_path / cache.NEWEST
    path.write_bytes(path.read_bytes().replace(b"9000", b"1234"))

    found = cache.read(tmp_path)

    assert found.cached.records == records()
    assert found.told == (
        f"{path} is damaged: its checksum does not fit (set aside as cache.json.damaged)",
        "using generation 1, the last verified one",
    )
    assert not path.exists()
    assert cache.write(tmp_path, records(mtu=9000)).generation == 2


def test_nothing_at_all_is_told_with_what_to_type(tmp_path):
    with pytest.raises(
        CacheError, match=r"no record of the network to work from: no .*cache\.json"
    ) as failure:
        cache.read(tmp_path)

    assert "interface-reconfigure --force" in failure.value.hint


def test_the_cache_of_another_host_is_not_used(tmp_path):
    cache.write(tmp_path, records(host="host-1"))

    with pytest.raises(CacheError, match="is of host host-1, and this is host-2"):
        cache.read(tmp_path, "host-2")
    assert (tmp_path / cache.NEWEST).exists()


def test_the_digest_is_of_what_is_wanted():
    up = records()
    attached = up._replace(pifs={"pif": up.pifs["pif"]._replace(currently_attached=True)})

    assert cache.digest(up) == cache.digest(attached) != cache.digest(records(mtu=9000))


def test_the_minimal_one_has_the_names_of_the_reference():
    made = cache.minimal(
        "xenbr0", "eth0", "52:54:00:00:00:0A", mode="static", ip="192.0.2.1", netmask="255.255.255.0"
    )
    (pif,), (network,) = made.pifs.values(), made.networks.values()

    assert (pif.uuid, pif.management, pif.mac) == ("eth0Pif", True, "52:54:00:00:00:0a")
    assert (pif.ip_mode, pif.ip, pif.gateway) == ("Static", "192.0.2.1", "")
    assert (network.uuid, network.bridge, made.bridge) == ("InitialManagementNetwork", "xenbr0", "xenbr0")


# the old form


def old_records():
    """A bond with a VLAN on it: every link between objects."""
    nics = {
        f"nic{n}": Pif(f"nic{n}", f"uuid-nic{n}", f"eth{n}", f"n{n}", mac=f"52:54:00:00:00:0{n}", physical=True,
                       bond_slave_of="bond", other_config={"ethtool-gro": "off"})
        for n in (0, 1)
    }  # fmt: skip
    master = Pif("master", "uuid-m", "bond0", "n2", mac="52:54:00:00:00:00", management=True, ip_mode="Static",
                 ip="192.0.2.7", netmask="255.255.255.0", gateway="192.0.2.1", dns="192.0.2.2",
                 bond_master_of=("bond",), vlan_slave_of=("vlan",))  # fmt: skip
    upper = Pif("upper", "uuid-u", "bond0", "n3", vlan=5, vlan_master_of="vlan")
    networks = {f"n{n}": Network(f"n{n}", f"uuid-n{n}", "", f"br{n}", mtu=1500 + n) for n in range(4)}
    return Records(
        "",
        {**nics, "master": master, "upper": upper},
        networks,
        {"bond": Bond("bond", "uuid-b", "master", ("nic0", "nic1"))},
        {"vlan": Vlan("vlan", "uuid-v", "master", "upper", 5)},
        "br2",
    )


def test_verifying_a_generation_leaves_a_newer_one_that_was_written_meanwhile(tmp_path):
    first = cache.write(tmp_path, old_records())
    newer = cache.write(tmp_path, old_records()._replace(bridge="xapi9"))

    cache.mark_verified(tmp_path, first)

    assert cache.read(tmp_path).cached == newer
    assert cache.read_verified(tmp_path) == first._replace(verified=True)
