"""Who holds a TCP port, as a made-up /proc tells it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api.tcp import AddressError, Holder, PortTakenError, listening_tcp, port_holders

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound
V4_ANY, V4_LOCAL = "00000000", "0100007F"
V6_ANY, V6_LOCAL = "0" * 32, "00000000000000000000000001000000"


def row(address: str, port: int, inode: int, state: str = "0A") -> str:
    peer = f"{'0' * len(address)}:0000"
    return (
        f"   0: {address}:{port:04X} {peer} {state} 00000000:00000000 00:00000000 00000000     0        0"
        f" {inode} 1 ffff8880 100 0 0 10 0\n"
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc/net").mkdir(parents=True)
    return tmp_path


def tables(root: Path, tcp4: str = "", tcp6: str | None = None) -> None:
    (root / "proc/net/tcp").write_text(HEADER + tcp4)
    if tcp6 is not None:
        (root / "proc/net/tcp6").write_text(HEADER + tcp6)


def process(root: Path, pid: int, program: str, *links: str) -> None:
    fds = root / "proc" / str(pid) / "fd"
    fds.mkdir(parents=True)
    (fds.parent / "comm").write_text(f"{program}\n")
    for number, link in enumerate(links):
        (fds / str(number)).symlink_to(link)


def test_a_process_that_listens_is_named(root):
    tables(root, row(V4_LOCAL, 631, 11) + row(V4_ANY, 80, 12))
    process(root, 7, "cupsd", "socket:[11]")
    process(root, 42, "apache2", "/dev/null", "socket:[99]", "socket:[12]")
    (root / "proc/version").write_text("Linux")

    assert port_holders(80, root) == [Holder(ANYWHERE, 42, "apache2")]
    assert port_holders(631, root) == [Holder("127.0.0.1", 7, "cupsd")]


def test_ipv6_is_looked_at_as_well(root):
    tables(root, "", row(V6_ANY, 443, 5) + row(V6_LOCAL, 443, 6))
    process(root, 3, "nginx", "socket:[5]", "socket:[6]")

    assert port_holders(443, root) == [Holder("::", 3, "nginx"), Holder("::1", 3, "nginx")]


def test_of_processes_that_share_a_socket_the_first_is_named(root):
    tables(root, row(V4_ANY, 80, 12))
    process(root, 1000, "worker", "socket:[12]")
    process(root, 999, "master", "socket:[12]")

    assert port_holders(80, root) == [Holder(ANYWHERE, 999, "master")]


def test_only_listening_sockets_count(root):
    tables(root, row(V4_LOCAL, 80, 12, "01") + row(V4_LOCAL, 80, 0, "06"))
    process(root, 5, "client", "socket:[12]")

    assert port_holders(80, root) == []


def test_a_socket_of_no_process_is_told(root):
    tables(root, row(V4_ANY, 80, 12))

    [holder] = port_holders(80, root)

    assert (holder.pid, holder.program) == (None, None)
    assert str(holder) == "a process that is not in /proc (on 0.0.0.0)"


def test_a_process_that_ends_meanwhile_is_passed_over(root):
    tables(root, row(V4_ANY, 80, 12))
    (root / "proc/5").mkdir()
    process(root, 6, "httpd", "socket:[12]")
    (root / "proc/6/comm").unlink()

    assert port_holders(80, root) == [Holder(ANYWHERE, 6, "a process that has ended")]


def test_without_proc_nobody_is_seen(tmp_path):
    assert port_holders(80, tmp_path) == []


@given(
    st.lists(st.text(max_size=60) | st.sampled_from([row(V4_ANY, 80, 1), row("00", 80, 2), row("zz", 80, 3)]))
)
def test_any_table_is_read(tmp_path_factory, lines):
    root = tmp_path_factory.mktemp("root")
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/tcp").write_text("".join(lines), errors="surrogatepass")

    assert {holder.address for holder in port_holders(80, root)} <= {ANYWHERE}


class Refusing:
    """A socket that cannot be bound."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.closed = False

    def setsockopt(self, *_: object) -> None: ...

    def bind(self, address: object) -> None:
        raise OSError(self._number, os.strerror(self._number))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def refusing(monkeypatch):
    def make(number: int) -> Refusing:
        made = Refusing(number)
        monkeypatch.setattr("socket.socket", lambda *_: made)
        return made

    return make


def test_a_port_that_is_taken_is_an_error_that_names_the_holder(root, refusing):
    made = refusing(errno.EADDRINUSE)
    tables(root, row(V4_ANY, 80, 12))
    process(root, 42, "apache2", "socket:[12]")

    with pytest.raises(PortTakenError) as caught:
        listening_tcp("127.0.0.1", 80, root)

    assert caught.value.found == "port 80 on 127.0.0.1 is taken by apache2, pid 42 (on 0.0.0.0)"
    assert "stop it" in caught.value.hint
    assert made.closed


def test_a_port_that_is_taken_by_nobody_to_see_has_a_hint(root, refusing):
    refusing(errno.EADDRINUSE)

    with pytest.raises(PortTakenError, match="no process is seen") as caught:
        listening_tcp("::1", 80, root)

    assert caught.value.hint.startswith("ss ")


def test_an_address_that_is_not_ours_is_another_error(root, refusing):
    refusing(errno.EADDRNOTAVAIL)

    with pytest.raises(AddressError, match="Cannot assign"):
        listening_tcp("192.0.2.1", 443, root)


@pytest.mark.parametrize("address", ["localhost", "", "1.2.3", "0.0.0.0/0"])
def test_a_name_is_no_address(root, address):
    with pytest.raises(AddressError, match="not an IP address"):
        listening_tcp(address, 80, root)
