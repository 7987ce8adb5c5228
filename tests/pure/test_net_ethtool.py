"""Link modes and offloads: messages of the ethtool family, and what is made of them."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import ethtool, ethtool_wire
from hostagent.net.ethtool import group, modes_from, restoring, seen, states
from hostagent.net.ethtool_wire import Features, LinkModes
from hostagent.net.wire_answers import MalformedMessage, messages, spans

FEATURE_NAMES = (
    "tx-scatter-gather",
    "tx-checksum-ipv4",
    "",
    "tx-checksum-ip-generic",
    "tx-scatter-gather-fraglist",
    "tx-generic-segmentation",
    "rx-gro",
    "rx-lro",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "rx-checksum",
    "rx-gro-hw",
    "rx-gro-list",
    "tx-gso-partial",
    "tx-tcp-accecn-segmentation",
)
MODE_NAMES = (
    "10baseT/Half",
    "10baseT/Full",
    "100baseT/Half",
    "100baseT/Full",
    "Autoneg",
    "TP",
    "Pause",
    "1000baseT/Full",
    "10000baseR_FEC",
    "BASER",
    "25000baseCR/Full",
)
NAMES = group(FEATURE_NAMES)
MODES = modes_from(MODE_NAMES)
AUTONEG, TP, PAUSE, GIGABIT = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MEGABITS = 0b1111
COPPER = LinkModes(
    autoneg=True, speed=1000, duplex="full", advertised=MEGABITS | GIGABIT | AUTONEG | TP | PAUSE, supported=0
)
FORCED = LinkModes(autoneg=False, speed=100, duplex="half", advertised=0, supported=0)


def bits(*names):
    return sum(1 << FEATURE_NAMES.index(name) for name in names)


def attribute(number, payload):
    return struct.pack("=HH", 4 + len(payload), number) + payload + bytes(-len(payload) % 4)


def compact(value, mask=None):
    data = attribute(2, struct.pack("=I", 64)) + attribute(4, value.to_bytes(8, sys.byteorder))
    return data + (b"" if mask is None else attribute(5, mask.to_bytes(8, sys.byteorder)))


def body_of(message):
    (only,) = messages(message)
    return only


# what the keys stand for


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("rx", ["rx-checksum"]),
        ("tx", ["tx-checksum-ipv4", "tx-checksum-ip-generic"]),
        ("sg", ["tx-scatter-gather", "tx-scatter-gather-fraglist"]),
        ("tso", ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-accecn-segmentation"]),
        ("gso", ["tx-generic-segmentation"]),
        ("gro", ["rx-gro"]),
        ("lro", ["rx-lro"]),
    ],
)
def test_a_key_stands_for_the_features_of_its_kind_and_no_others(key, names):
    assert NAMES.groups[key] == bits(*names)
    assert NAMES.size == len(FEATURE_NAMES)


def test_an_offload_is_on_when_any_of_its_features_is():
    found = states(Features("eth0", 0, bits("tx-tcp6-segmentation", "rx-gro-hw")), NAMES)

    assert found == {
        "rx": False,
        "tx": False,
        "sg": False,
        "tso": True,
        "gso": False,
        "gro": False,
        "lro": False,
    }


def test_what_only_accompanies_an_offload_does_not_make_it_on():
    assert not states(Features("eth0", 0, bits("tx-tcp-accecn-segmentation")), NAMES)["tso"]


def test_link_modes_are_told_from_the_other_bits_by_their_names():
    assert MODES.of == {
        0: (10, "half"),
        1: (10, "full"),
        2: (100, "half"),
        3: (100, "full"),
        7: (1000, "full"),
        10: (25000, "full"),
    }
    assert MODES.mask == MEGABITS | GIGABIT | 1 << 10


# what is so, in the words of what is wanted


@pytest.mark.parametrize(
    ("found", "wanted", "is_"),
    [
        pytest.param(COPPER, {"autoneg": "on"}, {"autoneg": "on"}, id="autoneg"),
        pytest.param(COPPER, {"autoneg": "off"}, {"autoneg": "on"}, id="autoneg-differs"),
        pytest.param(COPPER, {"speed": 1000}, {"speed": "10,100,1000"}, id="more-than-that-is-advertised"),
        pytest.param(COPPER, {"duplex": "full"}, {"duplex": "full,half"}, id="both-are-advertised"),
        pytest.param(
            COPPER._replace(advertised=GIGABIT | AUTONEG | TP),
            {"speed": 1000, "duplex": "full"},
            {"speed": 1000, "duplex": "full"},
            id="only-that-is-advertised",
        ),
        pytest.param(
            COPPER._replace(advertised=GIGABIT | AUTONEG, speed=0, duplex=""),
            {"speed": 100},
            {"speed": 1000},
            id="advertised-counts-without-a-link",
        ),
        pytest.param(
            FORCED._replace(advertised=COPPER.advertised),
            {"speed": 1000, "duplex": "full", "autoneg": "off"},
            {"speed": 100, "duplex": "half", "autoneg": "off"},
            id="forced",
        ),
        pytest.param(
            FORCED._replace(speed=0, duplex=""),
            {"speed": 1000, "duplex": "full"},
            {"speed": 1000, "duplex": "full"},
            id="what-cannot-be-told-counts-as-wanted",
        ),
        pytest.param(COPPER, {"advertise": GIGABIT}, {"advertise": MEGABITS | GIGABIT}, id="modes-only"),
        pytest.param(
            COPPER._replace(advertised=GIGABIT | PAUSE | AUTONEG),
            {"advertise": GIGABIT | PAUSE},
            {"advertise": GIGABIT | PAUSE},
            id="and-what-else-was-asked-for",
        ),
    ],
)
def test_what_is_so_is_told_in_the_words_of_what_is_wanted(found, wanted, is_):
    assert seen(found, wanted, MODES) == is_


def test_the_undo_advertises_what_was_advertised_or_forces_what_was_forced():
    assert restoring(COPPER, MODES) == {"autoneg": "on", "advertise": MEGABITS | GIGABIT}
    assert restoring(FORCED, MODES) == {
        "autoneg": "off",
        "speed": 100,
        "duplex": "half",
    }
    assert restoring(FORCED._replace(speed=0, duplex=""), MODES) == {"autoneg": "off"}


@given(st.booleans(), st.integers(0, 1 << 12), st.sampled_from([0, 10, 1000]), st.sampled_from(["", "half"]))
def test_the_undo_of_no_change_is_already_so(autoneg, advertised, speed, duplex):
    found = LinkModes(autoneg, speed, duplex, advertised, advertised)
    undo = restoring(found, MODES)

    assert seen(found, undo, MODES) == undo


# the messages


def test_a_message_has_the_number_that_it_is_given():
    message = ethtool_wire.ask(21, ethtool_wire.FEATURES_GET, "eth0")
    plain, numbered = body_of(message), body_of(ethtool_wire.numbered(message, 77))

    assert (plain.sequence, numbered.sequence) == (0, 77)
    assert numbered._replace(sequence=0) == plain
    assert (plain.type, plain.body[:2]) == (21, b"\x0b\x01")


def test_one_device_is_asked_for_by_name_and_all_of_them_by_a_dump():
    one = body_of(ethtool_wire.ask(21, ethtool_wire.LINK_MODES_GET, "eth0"))
    everything = body_of(ethtool_wire.ask(21, ethtool_wire.LINK_MODES_GET))

    assert (one.flags, everything.flags) == (0x5, 0x301)
    assert b"eth0\0" in one.body
    assert len(everything.body) == 4 + 4 + 8


def test_features_are_set_by_value_and_mask_of_all_the_kernels_bits():
    body = body_of(
        ethtool_wire.set_features(
            21,
            "eth0",
            1 << 6,
            1 << 6 | 1 << 40,
            64,
        )
    ).body
    wanted = body[spans(body, 4)[3]]
    parts = {number: wanted[span] for number, span in spans(wanted).items()}

    assert parts == {
        2: struct.pack("=I", 64),
        4: (1 << 6).to_bytes(8, sys.byteorder),
        5: (1 << 6 | 1 << 40).to_bytes(8, sys.byteorder),
    }


def test_only_wanted_link_settings_are_in_the_message():
    speed = body_of(ethtool_wire.set_link_modes(21, "eth0", {"speed": 100}, 0xFF, 64)).body
    rest = {"autoneg": "off", "duplex": "half"}
    others = body_of(ethtool_wire.set_link_modes(21, "eth0", rest, 0xFF, 64)).body

    assert sorted(spans(speed, 4)) == [1, 5]
    assert speed[spans(speed, 4)[5]] == struct.pack("=I", 100)
    assert sorted(spans(others, 4)) == [1, 2, 6]
    assert (others[spans(others, 4)[2]], others[spans(others, 4)[6]]) == (b"\0", b"\0")


def test_advertising_takes_away_the_other_supported_modes_and_nothing_else():
    body = body_of(ethtool_wire.set_link_modes(21, "eth0", {"advertise": 0x20 | 1 << 70}, 0x3F, 64)).body
    ours = body[spans(body, 4)[3]]
    parts = {number: int.from_bytes(ours[span], sys.byteorder) for number, span in spans(ours).items()}

    assert parts == {2: 71, 4: 0x20 | 1 << 70, 5: 0x3F | 1 << 70}


def test_features_of_a_device_are_read_from_an_answer():
    head = attribute(1, attribute(1, struct.pack("=I", 3)) + attribute(2, b"xenbr0\0"))
    body = b"\x0b\x01\0\0" + head + attribute(2, compact(0x41)) + attribute(4, compact(0x40))

    assert ethtool_wire.features_of(body) == Features("xenbr0", changeable=0x41, active=0x40)


@pytest.mark.parametrize(
    ("speed", "duplex", "told"),
    [(1000, b"\1", (1000, "full")), (10, b"\0", (10, "half")), (0xFFFFFFFF, b"\xff", (0, ""))],
)
def test_link_modes_are_read_from_an_answer(speed, duplex, told):
    body = b"\x04\x01\0\0" + attribute(2, b"\1") + attribute(3, compact(0x20, 0x3F))
    body += attribute(5, struct.pack("=I", speed)) + attribute(6, duplex)

    found = ethtool_wire.link_modes_of(body)
    assert (found.speed, found.duplex) == told
    assert (found.autoneg, found.advertised, found.supported) == (True, 0x20, 0x3F)


def test_names_stand_at_the_bits_they_are_for():
    strings = b"".join(
        attribute(0x8001, attribute(1, struct.pack("=I", bit)) + attribute(2, name + b"\0"))
        for bit, name in ((0, b"tx-scatter-gather"), (3, b"rx-gro"))
    )
    body = b"\x01\x01\0\0" + attribute(2, attribute(1, attribute(1, bytes(4)) + attribute(3, strings)))

    assert ethtool_wire.names_of(body) == ("tx-scatter-gather", "", "", "rx-gro")


def test_a_bit_of_absurd_number_is_refused():
    string = attribute(0x8001, attribute(1, struct.pack("=I", 1 << 30)) + attribute(2, b"x\0"))
    body = b"\x01\x01\0\0" + attribute(2, attribute(1, attribute(3, string)))

    with pytest.raises(MalformedMessage):
        ethtool_wire.names_of(body)


@pytest.mark.parametrize(
    "decode",
    [
        ethtool_wire.features_of,
        ethtool_wire.link_modes_of,
        ethtool_wire.names_of,
        ethtool_wire.family_of,
    ],
)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.binary(max_size=12),
            lambda inner: st.lists(st.tuples(st.integers(0, 7), inner), max_size=4).map(
                lambda parts: b"".join(attribute(*part) for part in parts)
            ),
        ).map(lambda data: b"\x0b\x01\0\0" + data),
    )
)
def test_bytes_that_are_no_answer_raise_one_error_only(decode, data):
    try:
        decode(data)
    except MalformedMessage as error:
        assert error.found  # noqa: PT017


def test_keys_of_errors_are_those_of_other_config():
    assert set(ethtool.OFFLOADS) == {"rx", "tx", "sg", "tso", "gso", "gro", "lro"}
    assert ethtool.LINK_KEYS == {"speed", "duplex", "autoneg", "advertise"}
