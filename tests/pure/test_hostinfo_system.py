"""What the system's files say about the machine, also when they hold garbage."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.db.datatype import NOT_IN_XML
from hostagent.hostinfo import system
from tests.pure.host_samples import CPUINFO, MEMINFO, OS_RELEASE, STAT
from tests.pure.startup_tree import put

anything = st.text() | st.from_regex(r"(processor|model|flags|cpu MHz|btime|NAME)\s*[:= ].*\n?")
any_file = st.lists(anything, max_size=8).map("\n".join)


def test_the_processors_of_a_nested_dom0():
    assert system.processors(CPUINFO) == system.Processors(
        count=2,
        vendor="AuthenticAMD",
        family=15,
        model=107,
        modelname="QEMU Virtual CPU version 2.5+",
        stepping="1",
        mhz=2394.454,
        flags="fpu de tsc msr pae mce cx8 apic hypervisor lahf_lm svm",
    )


@given(st.integers(0, 9), st.lists(st.sampled_from(["fpu", "vme", "lm"]), unique=True))
def test_every_processor_is_counted_and_the_first_described(count, flags):
    text = "\n".join(f"processor\t: {n}\nmodel\t: {n}\nflags\t: {' '.join(flags)}\n" for n in range(count))

    found = system.processors(text)

    assert found.count == count
    assert found.model == 0
    assert found.flags == (" ".join(flags) if count else "")


@given(any_file)
def test_no_text_makes_a_parser_fail_or_answer_what_xml_cannot_carry(text):
    found = system.processors(text)

    words = [value for value in dataclasses.asdict(found).values() if isinstance(value, str)]
    words += system.os_release(text).values()
    assert not any(NOT_IN_XML.search(word) for word in words)
    assert found.count >= 0
    assert found.mhz >= 0
    assert system.boot_time(text) >= 0
    assert system.memory_kib(text) >= 0


def test_numbers_that_are_none_count_as_zero():
    found = system.processors("processor: 0\ncpu family: x\nmodel: 99999999999\ncpu MHz: 1e9\n")

    assert (found.family, found.model, found.mhz) == (0, 0, 0.0)


def test_boot_time_and_memory():
    assert system.boot_time(STAT) == 1795280400
    assert system.boot_time("cpu 1\n") == 0
    assert system.memory_kib(MEMINFO) == 2012345


@given(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True),
    st.text(st.characters(codec="ascii", categories=["L", "N"])),
)
def test_an_os_release_line_is_read_in_each_of_its_forms(key, value):
    for text in (f"{key}={value}", f'{key}="{value}"', f"{key}='{value}'"):
        assert system.os_release(text) == {key: value}


def test_os_release_leaves_out_what_it_cannot_read():
    assert system.os_release('# NAME=x\nname=y\nNAME="open\nID=debian\n') == {"ID": "debian"}


def test_firmware_strings_lose_their_control_characters_and_empty_ones_are_left_out(tmp_path):
    put(tmp_path / "sys/class/dmi/id/sys_vendor", "QE\x07MU \n")
    put(tmp_path / "sys/class/dmi/id/product_serial", " \n")

    assert system.bios_strings(tmp_path) == {"system-manufacturer": "QEMU"}


@pytest.mark.parametrize(
    ("link", "file", "zone"),
    [
        ("/usr/share/zoneinfo/Europe/Berlin", "UTC", "Europe/Berlin"),
        ("../usr/share/zoneinfo/America/Argentina/Ushuaia", None, "America/Argentina/Ushuaia"),
        (None, "Asia/Tokyo\n", "Asia/Tokyo"),
        ("/elsewhere", "../../etc/passwd", "UTC"),
        (None, None, "UTC"),
    ],
)
def test_the_time_zone(tmp_path, link, file, zone):
    (tmp_path / "etc").mkdir()
    if link:
        (tmp_path / "etc/localtime").symlink_to(link)
    if file:
        put(tmp_path / "etc/timezone", file)

    assert system.timezone(tmp_path) == zone


@pytest.mark.parametrize(
    ("value", "on"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (b"\x01", False), (None, False)]
)
def test_secure_boot_is_the_byte_after_the_attributes(tmp_path, value, on):
    path = tmp_path / system.SECURE_BOOT
    if value is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(value)

    assert system.secure_boot(tmp_path) is on


def test_a_whole_system_is_read_and_an_empty_one_too(tmp_path):
    assert system.read(tmp_path) == system.System()

    put(tmp_path / "proc/sys/kernel/hostname", "h1\n")
    put(tmp_path / "proc/sys/kernel/osrelease", "6.12.41+deb13-amd64\n")
    put(tmp_path / "proc/cpuinfo", CPUINFO)
    put(tmp_path / "proc/stat", STAT)
    put(tmp_path / "proc/meminfo", MEMINFO)
    put(tmp_path / "etc/os-release", OS_RELEASE)
    found = system.read(tmp_path)

    assert (found.hostname, found.kernel) == ("h1", "6.12.41+deb13-amd64")
    assert found.release == "Debian GNU/Linux 13 (trixie)"
    assert found.boot_time == 1795280400
    assert found.processors.count == 2
    assert found.memory_kib == 2012345
