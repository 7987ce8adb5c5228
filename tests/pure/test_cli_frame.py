"""What every sub-command has: help with an example, --json, a suggestion for a typo, an error with a hint."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from hostagent import __version__, cli
from hostagent.__main__ import main
from hostagent.cli import build_parser, output
from hostagent.cli.output import Column, duration, size, size_kib, when
from hostagent.cli.parser import _subparser_actions, leaves
from hostagent.errors import HostagentError, InvalidValueError

COMMANDS = leaves(build_parser())
FIRST_WORDS = ("hostagent ", "printf ", "systemctl ")
every_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.prog)


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


@dataclass
class Args:
    json: bool = False


@every_command
def test_the_help_of_a_command_has_an_example_of_it(command):
    assert f"  {command.prog}" in command.format_help().partition("examples:")[2]


def groups(parser):
    """Every parser that has sub-commands, the first included."""
    below = [child for action in _subparser_actions(parser) for child in action.choices.values()]
    return [parser, *(group for child in below for group in groups(child))] if below else []


@pytest.mark.parametrize(
    "parser", [*groups(build_parser())[1:], *COMMANDS], ids=lambda parser: parser.prog.replace(" ", "-")
)
def test_every_example_is_one_command_to_a_line(parser):
    if parser.epilog:
        lines = [line.strip() for line in parser.epilog.splitlines()[1:]]
        assert [line for line in lines if not line.startswith(FIRST_WORDS)] == []


@every_command
def test_the_help_of_a_command_stays_within_a_wide_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")

    assert max(len(line) for line in command.format_help().splitlines()) <= 120


@every_command
def test_every_command_takes_json_and_the_directories(command):
    options = command._option_string_actions

    assert {"--json", "--etc", "--state", "--run"} <= set(options)


@every_command
def test_every_command_has_a_handler(command):
    assert callable(command.get_default("handler"))


def test_help_exits_with_0_and_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"    {name}" in shown for name in cli.MODULES)
    assert "/etc/hostagent/" in shown


def test_version_prints_the_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == f"hostagent {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "suggestion"),
    [
        (["stauts"], "status"),
        (["completion", "bsh"], "bash"),
        (["status", "--jsn"], "--json"),
        (["status", "--watsh"], "--watch"),
    ],
)
def test_a_typo_exits_with_2_and_the_right_spelling(argv, suggestion, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)

    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"did you mean '{suggestion}'?" in shown
    assert "hint: hostagent" in shown


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["status", "extra"], ["completion"]])
def test_a_wrong_command_line_exits_with_2_and_a_hint(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)

    assert ended.value.code == 2
    assert "hint: hostagent" in capsys.readouterr().err


def test_an_abbreviated_option_is_not_guessed():
    with pytest.raises(SystemExit):
        main(["status", "--js"])


def failing_with(failure: BaseException, monkeypatch, *argv: str) -> int:
    def handler(_args: object) -> int:
        raise failure

    monkeypatch.setattr("hostagent.cli.completion.print_script", handler)
    return main(["completion", "bash", *argv])


def test_an_error_is_shown_with_its_hint_and_exits_with_1(monkeypatch, capsys):
    assert failing_with(HostagentError("the disk is full", hint="df"), monkeypatch) == 1
    assert capsys.readouterr().err == "error: the disk is full\nhint: df\n"


def test_with_json_an_error_is_one_json_object_with_its_code(monkeypatch, capsys):
    failure = InvalidValueError("size", "-1", "a size is positive", hint="give another")

    assert failing_with(failure, monkeypatch, "--json") == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {"error": failure.record()}
    assert failure.record()["params"] == ["size", "-1"]


def test_ctrl_c_exits_with_130_and_says_nothing(monkeypatch, capsys):
    assert failing_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_left_is_no_error(monkeypatch, capfd):
    assert failing_with(BrokenPipeError(), monkeypatch) == 141
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete"), ("zsh", "#compdef hostagent")])
def test_the_completion_script_knows_every_command(shell, sign, capsys):
    assert main(["completion", shell]) == 0

    script = capsys.readouterr().out
    assert sign in script
    assert all(name in script for name in cli.MODULES)


def test_the_completion_script_does_not_offer_hidden_options(capsys):
    main(["completion", "bash"])

    assert "--etc" not in capsys.readouterr().out


# --- output ---


@dataclass
class Row:
    name: str
    size_bytes: int


ROWS = [Row("a", 1536), Row("bb", 3 << 30)]
COLUMNS = ("name", Column("size_bytes", "size", size))


def test_rows_are_a_table_for_people(capsys):
    output.emit(Args(), ROWS, columns=COLUMNS)  # type: ignore[arg-type]

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "size"],
        ["------", "-------"],
        ["a", "1.5", "KiB"],
        ["bb", "3.0", "GiB"],
    ]


def test_rows_are_raw_for_programs(capsys):
    output.emit(Args(json=True), ROWS, columns=COLUMNS)  # type: ignore[arg-type]

    assert json.loads(capsys.readouterr().out)[1] == {"name": "bb", "size_bytes": 3 << 30}


def test_a_record_is_one_line_per_field(capsys):
    output.emit(Args(), {"state": "ready", "up_for": 5})  # type: ignore[arg-type]

    assert capsys.readouterr().out == "state   ready\nup for  5\n"


def test_no_rows_say_so(capsys):
    output.emit(Args(), [], empty="no domains")  # type: ignore[arg-type]

    assert capsys.readouterr().out == "no domains\n"


def test_a_name_that_looks_like_a_number_stays_as_it_is(capsys):
    output.emit(Args(), [{"uuid": "0012", "id": "1e5"}])  # type: ignore[arg-type]

    assert "0012" in (shown := capsys.readouterr().out)
    assert "1e5" in shown


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_whose_user_wants_it(monkeypatch, no_color, coloured):
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout", terminal)

    output.emit(Args(), [{"state": "failed"}])  # type: ignore[arg-type]

    assert ("\x1b[31mfailed" in terminal.text) == coloured


def test_a_pipe_gets_no_colour(capsys):
    output.emit(Args(), [{"state": "failed"}])  # type: ignore[arg-type]

    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB"), (None, "")],
)
def test_sizes_have_binary_units(value, shown):
    assert size(value) == shown


def test_sizes_in_kib_are_the_same_sizes():
    assert size_kib(3 << 20) == "3.0 GiB"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0124, "12 ms"),
        (5.25, "5.2 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (7200, "2 h"),
        (93784, "1 d 2 h"),
        (None, ""),
    ],
)
def test_durations_have_the_two_units_that_matter(value, shown):
    assert duration(value) == shown


def test_a_moment_is_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    assert when(0) == "1970-01-01 00:00:00"
    assert when("soon") == "soon"
