"""The command of the lab: what it says and refuses, without a host."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from nested_xen import cli, lab, network, process, registry
from nested_xen.host import Host

from tests.pure.lab_hosts import TCG, h1

if TYPE_CHECKING:
    from pathlib import Path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main([*words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, made: lab.Lab) -> lab.Lab:
    monkeypatch.setattr(process, "require_root", lambda: None)
    h1(made)
    return made


def test_without_root_every_command_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["list"], ["down"], ["up"], ["logs", "h1"]):
        code, _, said = run(capsys, *words)
        assert code == 1
        assert said == "error: the lab needs root: taps and network namespaces\nhint: run it with sudo\n"
    code, said, _ = run(capsys, "list", "--json")
    assert json.loads(said)["hint"] == "run it with sudo"


def test_files_that_are_not_there_are_errors_and_no_tracebacks(
    root: lab.Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "copy", "--name", "pure", "/no/such", "h1:/x")[0] == 1
    code, _, said = run(capsys, "logs", "--name", "pure", "h1")
    assert (code, said) == (1, "error: h1 has no serial log yet: it was never on\n")

    def full(name: str) -> None:
        raise OSError(28, "No space left on device", "/run")

    monkeypatch.setattr(lab, "down", full)
    code, _, said = run(capsys, "down", "--name", "pure")
    assert code == 1
    assert "error: [Errno 28] No space left on device: '/run'" in said


def test_logs_and_ssh_know_json(root: lab.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (root.hosts["h1"].folder / "serial.log").write_text("(XEN) hello\n")
    code, said, _ = run(capsys, "logs", "--name", "pure", "--json", "h1")
    assert (code, json.loads(said)) == (0, {"host": "h1", "serial": "(XEN) hello\n"})
    for words in (["logs", "-f"], ["ssh"]):
        code, said, _ = run(capsys, *words, "--name", "pure", "--json", "h1")
        assert code == 1
        assert "has no JSON form" in json.loads(said)["error"]


def test_exec_streams_and_copy_into_a_folder_keeps_the_name(
    root: lab.Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Host, "ssh_arguments", lambda _: ["ssh"])
    streamed: list[list[str]] = []

    def stream(words: list[str], **_: object) -> int:
        streamed.append(words)
        return 3

    monkeypatch.setattr(process, "stream", stream)
    assert run(capsys, "exec", "--name", "pure", "h1", "xl", "info")[0] == 3
    assert streamed == [["ssh", "xl info"]]
    targets: list[Path] = []
    monkeypatch.setattr(Host, "get", lambda _, remote, local: targets.append(local))
    code, _, said = run(capsys, "copy", "--name", "pure", "h1:/etc/fstab", str(tmp_path))
    assert (code, targets) == (0, [tmp_path / "fstab"])
    assert f"copying h1:/etc/fstab to {tmp_path}" in said
    for wrong in (["a", "b"], ["h1:/a", "h1:/b"], ["h9:/a", "b"]):
        assert run(capsys, "copy", "--name", "pure", *wrong)[0] == 1


def test_down_also_takes_what_a_killed_up_was_making(
    root: lab.Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    monkeypatch.setattr(network, "remove", gone.append)
    registry.claim("make-abcdef")
    other = lab.Lab("make-abcdef", root.image, TCG, 4711)
    other.record()
    record = registry.folder("make-abcdef") / "lab.json"
    record.write_text(record.read_text().replace('"owner_started": null', '"owner_started": 1'))
    code, said, _ = run(capsys, "down", "--name", "pure", "--json")
    assert (code, json.loads(said)) == (0, {"down": ["pure", "make-abcdef"]})
    assert gone == ["pure", "make-abcdef"]
    assert registry.names() == []
    assert not registry.store("make-abcdef").exists()
