"""The link to libvirtd: absent, gone, frozen or well; the library is a small imitation that keeps state."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from hostagent.xen.libvirt_link import LibvirtError, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class FakeDomain:
    """One domain of libvirt-python; `ID` is -1 while it is not running."""

    def __init__(self, name: str, domid: int, state: int) -> None:
        self._name, self._domid, self._state = name, domid, state
        self.error: Exception | None = None

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return f"00000000-0000-4000-8000-{self._domid & 0xFFFF:012x}"

    def ID(self) -> int:
        return self._domid

    def info(self) -> list[int]:
        if self.error is not None:
            raise self.error
        return [self._state, 263168, 262144, 1, 5]

    def isPersistent(self) -> int:
        return 0

    def OSType(self) -> str:
        return "linux"


class FakeLibvirt:
    """libvirtd and its library: `restart` breaks connections, `freeze` makes calls wait for `thaw`."""

    class libvirtError(Exception):
        def __init__(self, text: str, code: int = 1) -> None:
            super().__init__(text)
            self.code = code

        def get_error_code(self) -> int:
            return self.code

    def __init__(self) -> None:
        self.generation = 0
        self.opened = 0
        self.refuse = ""
        self.gone: int | None = None
        self.answering = threading.Event()
        self.answering.set()

    def restart(self) -> None:
        self.generation += 1

    def freeze(self) -> None:
        self.answering.clear()

    def thaw(self) -> None:
        self.answering.set()

    def open(self, _uri: str) -> FakeConnection:
        self.answering.wait()
        if self.refuse:
            raise self.libvirtError(self.refuse)
        self.opened += 1
        return FakeConnection(self)


class FakeConnection:
    """A connection that dies with the libvirtd it was made to."""

    def __init__(self, library: FakeLibvirt) -> None:
        self.library = library
        self.generation = library.generation

    def _answer(self, answer: Any) -> Any:
        self.library.answering.wait()
        if self.generation != self.library.generation:
            raise self.library.libvirtError("client socket is closed")
        return answer

    def isAlive(self) -> int:
        return int(self.generation == self.library.generation)

    def listAllDomains(self) -> list[FakeDomain]:
        guests = [FakeDomain("gvirt", 2, 3), FakeDomain("Domain-0", 0, 1), FakeDomain("off", -1, 5)]
        if self.library.gone is not None:
            guests[0].error = self.library.libvirtError("cannot tell", self.library.gone)
        answer: list[FakeDomain] = self._answer(guests)
        return answer

    def getLibVersion(self) -> int:
        answer: int = self._answer(11_003_000)
        return answer

    def close(self) -> int:
        return 0


@pytest.fixture
def library() -> Iterator[FakeLibvirt]:
    library = FakeLibvirt()
    yield library
    library.thaw()


@pytest.fixture
def link_to(tmp_path: Path) -> Callable[[FakeLibvirt], Link]:
    """A link over a socket that is there, with a short deadline."""
    (tmp_path / "libvirt-sock").touch()
    return lambda library: Link(sockets=(tmp_path / "libvirt-sock",), library=library, deadline_s=0.05)


def test_domains_come_by_name_with_a_domid_only_while_they_run(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    with link_to(library) as link:
        found = [(domain.name, domain.domid, domain.state) for domain in link.domains()]

    assert found == [("Domain-0", 0, "running"), ("gvirt", 2, "paused"), ("off", None, "shutoff")]


def test_one_connection_serves_many_calls(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    link = link_to(library)

    assert [link.version() for _ in range(3)] == ["11.3.0"] * 3
    assert library.opened == 1


def test_a_restarted_libvirtd_is_connected_to_again(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    link = link_to(library)
    link.version()

    library.restart()

    assert link.version() == "11.3.0"
    assert library.opened == 2


@pytest.mark.parametrize(
    ("refusal", "found", "hint"),
    [
        ("no connection driver available for xen:///system", "no connection driver", "journalctl"),
        (
            "internal error: libxenlight state driver is not active",
            "without its Xen driver",
            "systemctl restart libvirtd",
        ),
    ],
)
def test_a_libvirtd_that_refuses_is_named_after_one_try(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link], refusal: str, found: str, hint: str
) -> None:
    library.refuse = refusal

    with pytest.raises(LibvirtError, match=found) as caught:
        link_to(library).version()

    assert hint in caught.value.hint


def test_an_absent_libvirtd_is_named_with_its_unit(library: FakeLibvirt, tmp_path: Path) -> None:
    with pytest.raises(LibvirtError, match="not running") as caught:
        Link(sockets=(tmp_path / "none",), library=library).version()
    assert "libvirtd.socket" in caught.value.hint
    assert library.opened == 0


def test_a_frozen_libvirtd_is_named_at_the_deadline_and_never_asked_twice_at_a_time(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    link = link_to(library)
    library.freeze()

    with pytest.raises(LibvirtError, match="did not answer within"):
        link.version()
    with pytest.raises(LibvirtError, match="still not answered an earlier call"):
        link.version()


def test_a_libvirtd_that_thaws_is_used_again(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    link = link_to(library)
    library.freeze()
    with pytest.raises(LibvirtError):
        link.version()

    library.thaw()

    assert link.version() == "11.3.0"


def test_a_domain_that_ends_while_it_is_listed_is_left_out(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    library.gone = 42

    with link_to(library) as link:
        assert [domain.name for domain in link.domains()] == ["Domain-0", "off"]
        assert [domain.name for domain in link.domains()] == ["Domain-0", "off"]
    assert library.opened == 1


def test_another_error_over_a_living_connection_is_told_and_not_taken_for_a_restart(
    library: FakeLibvirt, link_to: Callable[[FakeLibvirt], Link]
) -> None:
    library.gone = 38
    link = link_to(library)
    link.version()

    with pytest.raises(LibvirtError, match="could not list domains: cannot tell"):
        link.domains()
    assert library.opened == 1
