"""The stored list of NICs."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.files import FileError
from hostagent.net.nics import NicListError, Seen, assign, dated, decode, encode, load, missing_since, store
from hostagent.net.nics_types import Nic
from tests.pure.net_nics import SLOT, A, B, known

STORED = (
    Nic(0, "eno1", A, 9000, True, (), "8086", "Intel Corporation", "1533", "I210", SLOT, driver="igb"),  # noqa: FBT003
    known(2, "eth1", B, present=False),
)


def test_the_list_comes_back_as_it_was_stored(tmp_path):
    path = tmp_path / "nics.json"
    assert load(path) == ()

    store(path, [nic._replace(carrier=True, speed=1000, duplex=True) for nic in STORED])

    assert load(path) == STORED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"version": 2, "nics": []}',
        b'{"version": 1, "nics": {}}',
        b'{"version": 1, "nics": [3]}',
        b'{"version": 1, "nics": [{"position": 0, "name": "eth0"}]}',
        b'{"version": 1, "nics": [{"position": "0", "name": "eth0", "mac": ""}]}',
        b'{"version": 1, "nics": [{"position": true, "name": "eth0", "mac": ""}]}',
        b'{"version": 1, "nics": [{"position": -1, "name": "eth0", "mac": ""}]}',
        b'{"version": 1, "nics": [{"position": 0, "name": "", "mac": "", "missing_since_s": 99999999999999}]}',
        b"\xff",
        b"[" * 100000,
    ],
)
def test_a_list_that_is_none_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "nics.json"
    path.write_bytes(content)

    with pytest.raises(NicListError) as caught:
        load(path)

    assert str(path) in caught.value.found
    assert "remove it" in caught.value.hint


def test_since_when_a_nic_is_missing_is_noted_once_and_forgotten_when_it_is_back(tmp_path):
    there = known(0, "eth0", A)
    gone = known(2, "eth1", B, present=False)

    noted = dated([there, gone], 1000)

    assert [nic.missing_since_s for nic in noted] == [0, 1000]
    path = tmp_path / "nics.json"
    store(path, noted)
    assert missing_since(path) == {B: time.strftime("since %Y-%m-%d %H:%M:%S", time.localtime(1000))}
    assert dated(decode(encode(noted)), 2000) == noted
    path.write_text("[")
    assert missing_since(path) == {}
    assert [nic.missing_since_s for nic in assign(noted, [Seen(known(0, "eth1", B))]).nics] == [0, 0]


def test_a_list_that_cannot_be_read_is_not_taken_for_none(tmp_path):
    path = tmp_path / "nics.json"
    path.mkdir()

    with pytest.raises(FileError):
        load(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["position", "name", "mac", "mtu", "present"]), inner, max_size=5)
    ),
)


@given(
    st.one_of(st.binary(max_size=60), JSON.map(lambda n: json.dumps({"version": 1, "nics": [n]}).encode()))
)
def test_any_bytes_are_a_list_or_a_value_error(data):
    try:
        found = decode(data)
    except ValueError:
        return
    assert decode(encode(found)) == found
