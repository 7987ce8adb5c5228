"""A file that was edited between takeover and release: the edit stays, and the card can be given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net.adopt_files import MARK, CannotAdoptError, Change, comment_out, restoring, uncommented

INTERFACES = """\
auto lo eth0
iface lo inet loopback

iface eth0 inet static
    address 192.0.2.10/24
    gateway 192.0.2.1
"""
PATH = "/etc/network/interfaces"


def taken_over():
    return Change(PATH, INTERFACES, comment_out(INTERFACES, "eth0")[0])


def test_an_edited_interfaces_file_gets_the_card_back_and_keeps_the_edit():
    change = taken_over()
    edit = "\nauto eth1\niface eth1 inet dhcp\n"

    (back,) = restoring([change], {PATH: change.after + edit}.get)

    assert back.after == INTERFACES + edit


def test_stanzas_of_another_card_that_is_ours_stay_out_of_use_in_the_same_file():
    both = INTERFACES + "\nauto eth1\niface eth1 inet static\n    address 198.51.100.1/24\n"
    without = comment_out(both, "eth0")[0]
    first = Change(PATH, both, without)
    second = Change(PATH, without, comment_out(without, "eth1")[0])

    (back,) = restoring([first], {PATH: second.after}.get, ["eth1"])
    assert back.after == comment_out(both, "eth1")[0]

    (last,) = restoring([second], {PATH: back.after}.get)
    assert last.after == both


def test_one_whose_marks_were_taken_away_by_hand_is_left():
    change = taken_over()
    by_hand = change.after.replace(MARK, "") + "# mine\n"

    assert restoring([change], {PATH: by_hand}.get) == ()


def test_one_that_is_gone_is_told_with_what_can_be_done():
    with pytest.raises(CannotAdoptError) as error:
        restoring([taken_over()], lambda _: None)

    assert "--keep-files" not in error.value.hint
    assert restoring([taken_over()], {PATH: INTERFACES}.get) == ()


LINES = st.lists(
    st.sampled_from(
        ["auto eth0", "auto lo eth0", "auto lo", "auto", "allow-hotplug eth0 eth1", "iface eth0 inet dhcp",
         "iface eth1 inet dhcp", " mtu 1500", "# words", "", "source x", " up x \\"]
    ),
    max_size=12,
)  # fmt: skip


@given(LINES, st.sampled_from(["", "\n"]))
def test_what_was_commented_out_comes_back(lines, end):
    text = "\n".join(lines) + (end if lines else "")

    back = uncommented(comment_out(text, "eth0")[0])

    assert back in (text, f"{text}\n")


def test_the_others_of_a_last_line_without_an_end_are_started_still():
    assert comment_out("auto lo eth0", "eth0")[0] == f"{MARK}auto lo eth0\nauto lo\n"
