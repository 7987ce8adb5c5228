"""xe's own command-line language: options, precedence, parameters, sizes, lists."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostagent.db import datatype
from hostagent.db.model import load
from hostagent.xe.arguments import (
    Arguments,
    Options,
    UsageError,
    arguments_of,
    boolean,
    escape,
    parse,
    size,
    split_list,
    with_password_file,
)
from hostagent.xe.values import from_text, map_from, to_text

WORD = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def test_a_command_line_is_options_a_command_and_its_parameters():
    options, arguments = parse(
        [
            "-s",
            "h",
            "vm-start",
            "-u",
            "me",
            "-pw",
            "",
            "uuid=1",
            "--force",
            "other-config:a=b=c",
            "-p",
            "8443",
        ]
    )
    assert options == Options(server="h", username="me", password="", port=8443)
    assert arguments == Arguments(
        "vm-start", (), (("uuid", "1"), ("force", "true"), ("other-config:a", "b=c"))
    )


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--nossl", "--debug"], Options(nossl=True, debug=True)),
        (["-pwf", "/f"], Options(password_file="/f")),
        (["-h", "x"], Options(server="x")),
        (["--traceparent", "00-1"], Options(traceparent="00-1")),
        (["--ca", "/c", "--no-verify"], Options(ca="/c", verify=False)),
        (["server=x", "port=80", "username=u", "password=p"], Options("x", 80, "u", "p")),
    ],
)
def test_options(words, options):
    assert parse([*words, "host-list"]) == (options, Arguments("host-list"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-s"], "-s needs a value"),
        (["-p", "0"], "a port is a number from 1 to 65535, not '0'"),
        (["-p", "٣"], "a port is a number from 1 to 65535, not '٣'"),
        (["-p", "65536"], "a port is a number from 1 to 65535, not '65536'"),
        (["nossl=perhaps"], "nossl is true or false, not 'perhaps'"),
    ],
)
def test_a_wrong_option_is_refused(words, error):
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert str(caught.value) == error


def test_the_command_line_beats_the_environment_beats_the_file():
    rc = (
        "# mine\nserver = no\nserver=file\nusername=file\npassword=file\nminimal=true\nparams=file\nnothing\n"
    )
    environment = {"XE_EXTRA_ARGS": "username=env,-pw,a\\,b,params=env", "XE_CA": "/ca"}
    options, arguments = parse(["vm-list", "-u", "own", "params=own"], environment, rc)
    assert (options.server, options.username, options.password, options.ca) == ("file", "own", "a,b", "/ca")
    assert (arguments.get("params"), arguments.minimal) == ("own", True)
    options, arguments = parse(["vm-list"], environment, rc)
    assert (options.username, arguments.get("params")) == ("env", "env")


def test_parameters():
    arguments = arguments_of(["c", "a=1", "a=2", "m:x=1", "m:x=2", "m:y=3", "--k=v", "word", "--multiple"])
    assert arguments.get("a") == "1"
    assert arguments.map("m") == {"x": "1", "y": "3"}
    assert arguments.words == ("word",)
    assert arguments.flag("multiple")
    assert not arguments.flag("absent")
    assert arguments.others(("a", "m:", "k", "multiple")) == ()
    assert arguments.others(("m", "k", "multiple", "a")) == (("m:x", "1"), ("m:x", "2"), ("m:y", "3"))
    assert arguments_of(["vm-list", "--help"]).command == "help"


def test_a_password_file_has_two_lines():
    assert with_password_file(Options(), "me\nsecret\n") == Options(username="me", password="secret")
    assert with_password_file(Options(), "me\r\na\x0bb\u2028c\r\n").password == "a\x0bb\u2028c"
    assert with_password_file(Options(), "me\n\n").password == ""
    with pytest.raises(UsageError):
        with_password_file(Options(), "me\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8GiB", 8 << 30),
        ("1MiB", 1 << 20),
        ("2KiB", 2048),
        ("1TiB", 1 << 40),
        ("7B", 7),
        ("-1", -1),
        ("+5", 5),
    ],
)
def test_sizes(text, value):
    assert size(text, "x") == value


@pytest.mark.parametrize("text", ["", "1.5GiB", "8 GiB", "8GB", "8gib", "GiB", "0x10", "٣", "1" * 30])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="x is a whole number"):
        size(text, "x")


def test_a_size_beyond_64_bits_is_refused():
    with pytest.raises(UsageError, match="at most 64 bits"):
        size("9999999999TiB", "x")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("1", True), ("False", False), ("n", False)]
)
def test_booleans(text, value):
    assert boolean(text, "x") is value


def no_object(cls, uuid):
    return f"{cls}/{uuid}"


@pytest.mark.parametrize(
    ("notation", "text", "value"),
    [
        ("string", "a b", "a b"),
        ("int", "4KiB", 4096),
        ("float", "0.5", 0.5),
        ("bool", "true", True),
        ("datetime", "2026-08-21T02:00:23Z", "20260821T02:00:23Z"),
        ("enum ip_configuration_mode", "dhcp", "DHCP"),
        ("host ref", "u1", "host/u1"),
        ("host ref", "", datatype.NULL_REF),
        ("string set", "a,b\\,c,", ["a", "b,c"]),
        ("PIF ref set", "u1,u2", ["PIF/u1", "PIF/u2"]),
    ],
)
def test_text_becomes_a_value_of_its_type(notation, text, value):
    assert from_text(datatype.parse(notation), text, "x", no_object) == value


@pytest.mark.parametrize(
    ("notation", "text"),
    [
        ("float", "x"),
        ("datetime", "yesterday"),
        ("enum ip_configuration_mode", "manual"),
        ("string", "\x00"),
        ("(string -> string) map", "a"),
    ],
)
def test_text_of_another_type_is_refused_by_name(notation, text):
    with pytest.raises(UsageError, match=r"^mode "):
        from_text(datatype.parse(notation), text, "mode", no_object)


def test_a_map_converts_its_values():
    kind = datatype.parse("(string -> int) map")
    assert map_from(kind, {"a": "1KiB"}, "m", no_object) == {"a": 1024}
    with pytest.raises(UsageError, match=r"^m:a "):
        map_from(kind, {"a": "x"}, "m", no_object)


@given(st.lists(WORD.filter(bool)))
def test_a_comma_list_is_read_as_it_was_escaped(members):
    assert split_list(",".join(map(escape, members))) == members


@given(st.lists(WORD), WORD, WORD)
@example(["-pw"], "", "")
@example(["=", "--", "--=", ":=", "a:", "-"], "\\", "=\n==")
def test_any_words_are_parsed_or_refused(words, extra, rc):
    try:
        options, arguments = parse(words, {"XE_EXTRA_ARGS": extra}, rc)
    except UsageError as error:
        assert str(error)  # noqa: PT017
        return
    assert options.port is None or 0 < options.port < 65536
    assert all(isinstance(value, str) for pair in arguments.pairs for value in pair)


@given(st.dictionaries(WORD.filter(lambda name: "=" not in name), WORD, max_size=5))
def test_every_parameter_comes_back(pairs):
    words = [f"x{name}={value}" for name, value in pairs.items()]
    assert dict(arguments_of(["c", *words]).pairs) == {f"x{name}": value for name, value in pairs.items()}


@given(WORD, st.sampled_from(sorted({f.notation for c in load().classes.values() for f in c.public})))
def test_any_text_for_any_type_of_the_model_is_a_value_that_fits_or_refused(text, notation):
    kind = datatype.parse(notation)
    try:
        value = from_text(kind, text, "x", lambda _cls, _uuid: "OpaqueRef:1")
    except UsageError:
        return
    fitted = datatype.fit(kind, value, load().enums)
    assert isinstance(to_text(kind, fitted, lambda _cls, ref: ref), str)
