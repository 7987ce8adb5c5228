"""`hostagent db` and `hostagent api`: with a daemon, without one, and what is printed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from hostagent.__main__ import main
from hostagent.api.calls_db import restore_and_restart
from hostagent.api.local_socket import listening_socket, socket_path
from hostagent.db.database import open_database
from hostagent.errors import KernelError
from hostagent.files import FileError, write_pieces
from hostagent.lifecycle import HostStillBootingError, Lifecycle
from tests.pure.api_server import serve


@pytest.fixture
def hostagent(paths, capsys):
    """Run a command; its exit code, and what it printed."""

    def run(*words):
        code = main([*words, "--etc", str(paths.etc), "--state", str(paths.state), "--run", str(paths.run)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(params=["daemon", "alone"])
def ask(request, paths, hostagent):
    """The same with a daemon, and without one on the database that a daemon left."""

    def with_daemon(*words, prepare=lambda db: None, look=lambda daemon: None):
        def play(daemon):
            prepare(daemon.core.db)
            return hostagent(*words), look(daemon)

        return serve(paths, play)[0]

    def alone(*words, prepare=lambda db: None):
        serve(paths, lambda daemon: prepare(daemon.core.db))
        return hostagent(*words)

    return with_daemon if request.param == "daemon" else alone


def dangle(db):
    """A reference that leads nowhere, and an object without its owner."""
    with db.write() as w:
        network = w.create("network", {})
        host = w.refs("host")[0]
        w.create(
            "PIF", {"host": host, "network": network, "metrics": w.create("PIF_metrics", {}), "VLAN": -1}
        )
        w.destroy("network", network)


def pool_name(paths):
    db = open_database(paths.database, paths.volatile_database)
    with db.read() as view:
        name = view.get("pool", view.the_only("pool"), "name_label")
    db.close()
    return name


def test_a_sound_database_is_said_to_be(ask):
    code, out, _ = ask("db", "check")
    assert code == 0
    assert [line.split() for line in out.splitlines()][2:] == [["file", "sound"], ["references", "sound"]]


def test_what_leads_nowhere_is_shown_and_mended_when_asked(ask, paths):
    code, out, _ = ask("db", "check", prepare=dangle)
    assert code == 2
    assert "network" in out
    assert out.endswith("hint: hostagent db check --repair\n")

    code, out, _ = ask("db", "check", "--repair", "--dry-run", "--json")
    planned = json.loads(out)
    assert (code, planned["repaired"]) == (2, False)
    assert [finding["class"] for finding in planned["findings"]] == ["PIF", "PIF_metrics"]

    code, out, _ = ask("db", "check", "--repair", "--json")
    done = json.loads(out)
    assert (code, done["repaired"], done["findings"]) == (0, True, planned["findings"])
    assert ask("db", "check")[0] == 0


def test_a_dry_run_of_nothing_is_refused(ask):
    code, _, err = ask("db", "check", "--dry-run")
    assert code == 1
    assert "--dry-run goes with --repair" in err


def test_a_damaged_file_is_told_with_what_to_do(hostagent, paths):
    paths.database.write_bytes(b"x" * 8192)
    code, out, _ = hostagent("db", "check")
    assert code == 2
    assert "damaged" in out
    assert "hostagent db restore FILE" in out


@pytest.mark.parametrize("left", [b"", b"x" * 8192])
def test_a_file_that_is_cut_off_or_damaged_is_not_made_an_empty_database(hostagent, paths, left):
    paths.database.write_bytes(left)
    assert hostagent("db", "check")[0] == 2
    assert hostagent("db", "check", "--repair")[0] == 2
    assert hostagent("db", "dump")[0] == 1
    assert paths.database.read_bytes() == left


def test_without_a_database_nothing_is_made(hostagent, paths):
    for words in (("check",), ("dump",), ("backup", str(paths.etc / "copy"))):
        code, _, err = hostagent("db", *words)
        assert code == 1
        assert "there is no database" in err
    assert not paths.database.exists()


@pytest.mark.parametrize("command", ["dump", "backup"])
def test_a_copy_can_be_restored_and_is_private(ask, paths, command, tmp_path):
    file = tmp_path / "copy"
    code, out, _ = ask("db", command, str(file))
    assert code == 0
    assert out.startswith(f"written: {file}, ")
    assert file.stat().st_mode & 0o777 == 0o600

    def rename(db):
        with db.write() as w:
            w.set("pool", w.the_only("pool"), "name_label", "changed")

    code, out, _ = ask("db", "restore", str(file), prepare=rename)
    assert code == 0
    assert "changed: the database was replaced" in out
    assert str(paths.database) + ".former-" in out
    assert pool_name(paths) == "here"


def test_a_dump_to_standard_output_is_the_dump_alone(ask):
    code, out, _ = ask("db", "dump")
    assert code == 0
    assert out.startswith("<?xml")
    assert out.endswith("</database>\n")


def test_the_daemon_is_asked_to_start_anew_after_a_restore_and_not_after_a_dry_run(
    paths, hostagent, tmp_path
):
    def play(daemon):
        file = str(tmp_path / "copy")
        hostagent("db", "backup", file)
        planned = hostagent("db", "restore", file, "--dry-run")
        between = list(daemon.restarts)
        done = hostagent("db", "restore", file, "--json")
        after = hostagent("db", "check")
        return planned, between, json.loads(done[1]), daemon.restarts, after

    planned, between, done, restarts, after = serve(paths, play)
    assert "nothing was changed" in planned[1]
    assert between == []
    assert (done["restarting"], done["kind"], len(restarts)) == (True, "backup", 1)
    assert after[0] == 1  # the daemon is on its way out
    assert "has been replaced" in after[2]


def test_what_the_daemon_refuses_comes_in_its_words(ask, tmp_path):
    (tmp_path / "file").write_text("<a/>")
    code, out, err = ask("db", "restore", str(tmp_path / "file"))
    assert (code, out) == (1, "")
    assert "it is XML, but no dump of a database" in err
    assert "hint: take a dump of XenServer, XCP-ng or hostagent" in err


def test_the_code_of_what_the_daemon_refuses_is_kept(ask, tmp_path):
    (tmp_path / "file").write_text("<a/>")
    _, _, err = ask("db", "restore", str(tmp_path / "file"), "--json")
    assert json.loads(err)["error"]["code"] == "RESTORE_INCOMPATIBLE_VERSION"


def test_a_copy_over_the_database_is_refused(ask, paths):
    code, _, err = ask("db", "backup", str(paths.database))
    assert code == 1
    assert "is the database itself" in err


def test_while_the_host_boots_nobody_takes_the_database(paths, hostagent, tmp_path):
    def play(_daemon):
        return [hostagent("db", *words) for words in (("check",), ("dump",), ("restore", str(tmp_path)))]

    for code, _, err in serve(paths, play, with_database=False):
        assert code == 1
        assert "the daemon runs and cannot do this: it is starting" in err


def test_before_the_host_is_ready_its_database_is_not_replaced(paths, hostagent, tmp_path):
    def play(daemon):
        hostagent("db", "backup", str(tmp_path / "copy"))
        daemon.service = replace(daemon.service, lifecycle=Lifecycle())
        with pytest.raises(HostStillBootingError):
            restore_and_restart(daemon.core, daemon.service, tmp_path / "copy", dry_run=False)
        return restore_and_restart(daemon.core, daemon.service, tmp_path / "copy", dry_run=True)["restarting"]

    assert serve(paths, play) is False
    assert not list(paths.state.glob("*.former-*"))


def test_in_emergency_mode_without_a_database_one_can_look_but_not_restore(paths, hostagent, tmp_path):
    serve(paths, lambda daemon: None)

    def play(daemon):
        daemon.lifecycle.entered_emergency(HostStillBootingError().record(), 0.0)
        return hostagent("db", "check"), hostagent("db", "restore", str(tmp_path / "x"))

    looked, refused = serve(paths, play, with_database=False)
    assert looked[0] == 0
    assert refused[0] == 1
    assert "systemctl stop hostagent" in refused[2]


def test_a_database_that_another_process_has_open_is_left_alone(paths, hostagent):
    db = open_database(paths.database, paths.volatile_database)
    code, _, err = hostagent("db", "check")
    db.close()
    assert code == 1
    assert "another process has" in err


def test_what_is_no_dump_over_http_breaks_the_file_off_and_keeps_the_old_one(tmp_path):
    (tmp_path / "file").write_text("old")

    def pieces():
        yield b"new"
        raise KernelError("broke off", hint="")

    with pytest.raises(KernelError):
        write_pieces(tmp_path / "file", pieces(), mode=0o600)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_daemon_that_breaks_off_leaves_no_half_dump(paths, hostagent, tmp_path):
    async def run():
        async def cut(_reader, writer):
            await _reader.readuntil(b"\r\n\r\n")
            if turns.pop() == "status":
                body = b'{"jsonrpc":"2.0","result":{"path":"p","generation":1},"id":1}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n<data\r\n")
            await writer.drain()
            writer.close()

        turns = ["dump", "status"]
        with listening_socket(socket_path(paths)) as listener:
            async with await asyncio.start_unix_server(cut, sock=listener):
                return await asyncio.to_thread(hostagent, "db", "dump", str(tmp_path / "file"))

    code, _, err = asyncio.run(run())
    assert code == 1
    assert "the daemon broke off" in err
    assert not (tmp_path / "file").exists()
    with pytest.raises(FileError):
        write_pieces(tmp_path / "no" / "file", (b"",))


# hostagent api


def test_coverage_counts_by_class_and_lists_the_calls_of_one(paths, hostagent):
    def play(_daemon):
        return [
            hostagent("api", "coverage", *words)
            for words in ((), ("--json",), ("--class", "task"), ("--class", "tusk"))
        ]

    counted, raw, names, wrong = serve(paths, play)
    found = json.loads(raw[1])
    rows = {line.split()[0]: line.split()[1:] for line in counted[1].splitlines()[2:]}
    assert rows["task"] == [str(len(found["task"]["works"])), str(len(found["task"]["not built"]))]
    assert rows["all"] == [
        str(sum(len(names[state]) for names in found.values())) for state in ("works", "not built")
    ]
    assert ["task.cancel", "works"] in [line.split() for line in names[1].splitlines()]
    assert wrong[0] == 1
    assert "did you mean task?" in wrong[2]


def test_coverage_needs_the_daemon(hostagent):
    code, _, err = hostagent("api", "coverage")
    assert code == 1
    assert "the daemon does not run" in err
