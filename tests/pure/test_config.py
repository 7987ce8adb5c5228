"""Settings: precedence, every kind of mistake with its place, the table behind the help."""

from __future__ import annotations

import dataclasses
import os
import string
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.config import FILE_LIMIT_BYTES, SETTINGS, Config, ConfigError, Paths, help_text, line_of, load
from tests.pure.startup_tree import value_or_error


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "conf.d").mkdir()
    return Paths(etc=tmp_path)


def test_without_files_every_setting_has_its_default(paths):
    config, files = load(paths)

    assert config == Config(paths=paths)
    assert files == ()


def test_later_sources_win(paths):
    paths.settings.write_text('[log]\nlevel = "error"\n[scripts]\ntimeout = 1\n[xenstore]\nwait = 1')
    (paths.etc / "conf.d/10.toml").write_text('[log]\nlevel = "warning"\n[scripts]\ntimeout = 2')
    (paths.etc / "conf.d/20.toml").write_text('[log]\nlevel = "debug"')
    (paths.etc / "conf.d/30.conf").write_text("not read")

    config, files = load(paths, ["xenstore.wait=9", "log.level=info"])

    assert (config.log_level, config.scripts_timeout_s, config.xenstore_wait_s) == ("info", 2.0, 9.0)
    assert [path.name for path in files] == ["hostagent.toml", "10.toml", "20.toml"]


def test_tables_of_free_names_are_merged(paths):
    paths.settings.write_text('[timeouts]\na-b = 1\nc = 2\n[log.modules]\n"hostagent.xen" = "debug"')

    config, _ = load(paths, ["timeouts.c=3", "log.modules.hostagent.net=error"])

    assert config.timeouts_s == {"a-b": 1.0, "c": 3.0}
    assert config.log_modules == {"hostagent.xen": "debug", "hostagent.net": "error"}


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ('x = 1\n[log]\n\nlevle = "info"', "line 1: x", "help"),
        ('[log]\n\nlevle = "info"', "line 3: log.levle", "did you mean log.level"),
        ('[log]\nlevel = "loud"', "line 2: log.level: 'loud'", "takes: debug"),
        ("[log]\nlevel = 3", "line 2: log.level: 3", "takes: debug"),
        ("[dom0]\nmemory = 5.5", "line 2: dom0.memory: 5.5", "MiB"),
        ("[dom0]\nmemory = true", "line 2: dom0.memory: True", "MiB"),
        ("[dom0]\nmemory = 1", "line 2: dom0.memory: 1", "128"),
        ("service.watchdog = 1", "line 1: service.watchdog: 1", "true | false"),
        ("[timeouts]\na = 0", "line 2: timeouts.a: 0", "seconds"),
        ('[timeouts]\n"a b" = "x"', "timeouts.a b: 'x'", "seconds"),
        ("timeouts = 5", "line 1: timeouts: unknown", ""),
        ("log = 5", "line 1: log: unknown", "hostagent run"),
        ("[log]\nlevel = [", "line 2", "key = value"),
        ("[log]\nlevel", "line 2", "key = value"),
        ("[scripts]\ntimeout = nan", "line 2: scripts.timeout: nan", "seconds"),
        ("[scripts]\ntimeout = 2024-01-01", "line 2: scripts.timeout", "seconds"),
    ],
)
def test_a_mistake_is_told_with_file_line_key_and_hint(paths, text, place, hint):
    paths.settings.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load(paths)

    assert str(paths.settings) in caught.value.found
    assert place in caught.value.found
    assert hint in caught.value.hint


def test_bytes_that_are_not_utf8_are_told_with_their_line(paths):
    paths.settings.write_bytes(b"[log]\nlevel = '\xff'")

    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        load(paths)


def test_a_file_of_more_than_1_mib_is_refused(paths):
    paths.settings.write_bytes(b"#" * (FILE_LIMIT_BYTES + 1))

    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load(paths)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (Path.mkdir, "could not be read"),
        (os.mkfifo, "not a plain file"),
        (lambda path: path.symlink_to("nowhere"), "could not be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(paths, make, found):
    make(paths.settings)

    with pytest.raises(ConfigError, match=found) as caught:
        load(paths)

    assert "default" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("dom0.memory = " + "9" * 5000, "not settings", id="digits"),
        pytest.param("dom0.memory = 0x" + "f" * 5000, "this int does not fit", id="hex-digits"),
        pytest.param("a = " + "[" * 100_000, "nested too deeply", id="arrays"),
        pytest.param("a = " + "{a = " * 100_000, "nested too deeply", id="tables"),
        pytest.param(".".join("a" * 2_000) + " = 1", "nested too deeply", id="dotted-key"),
        pytest.param("log.level = " + "[" * 200 + "]" * 200, "does not fit", id="value"),
        pytest.param("a" * 500_000 + " = 1", "unknown setting", id="key"),
    ],
)
def test_garbage_that_is_too_large_or_too_deep_is_told_in_a_few_words(paths, text, found):
    paths.settings.write_text(text)

    with pytest.raises(ConfigError, match=found) as caught:
        load(paths)

    assert str(paths.settings) in caught.value.found
    assert len(caught.value.found) < len(str(paths)) + 300


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "[" * 100_000])
def test_a_monstrous_override_is_told_too(paths, value):
    with pytest.raises(ConfigError, match="does not fit"):
        load(paths, [f"dom0.memory={value}"])


@pytest.mark.parametrize("override", ["log.level", "log.level=loud", "nope=1", "=1", ""])
def test_a_wrong_override_names_itself(paths, override):
    with pytest.raises(ConfigError) as caught:
        load(paths, [override])

    assert "--set" in caught.value.found


def test_every_setting_is_in_the_help_with_its_default():
    text = help_text()

    for name, row in SETTINGS:
        assert row.key in text
        assert row.help in text
        assert any(item.name == name for item in dataclasses.fields(Config))
    assert "(default 60)" in text


def test_every_default_fits_its_own_setting():
    for _, row in SETTINGS:
        assert row.table or row.default is None or row.parse(row.default) == row.default


@given(st.binary(max_size=300))
def test_any_bytes_are_settings_or_a_clear_error(tmp_path_factory, data):
    paths = Paths(etc=tmp_path_factory.mktemp("any"))
    paths.settings.write_bytes(data)

    found = value_or_error(lambda: load(paths)[0], ConfigError)

    assert isinstance(found, Config) or (str(paths.settings) in found.found and found.hint)


keys = st.sampled_from([row.key.replace("NAME", "x") for _, row in SETTINGS])
toml_values = st.one_of(
    st.integers(-(2**62), 2**62).map(str),
    st.floats().map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.text(string.ascii_letters + " ", max_size=9).map(lambda text: f'"{text}"'),
    st.just("[1, 2]"),
    st.just("{a = 1}"),
)


@given(keys, toml_values)
def test_any_value_of_a_known_setting_is_taken_or_refused_with_its_key(tmp_path_factory, key, value):
    paths = Paths(etc=tmp_path_factory.mktemp("value"))
    paths.settings.write_text(f"{key} = {value}")

    found = value_or_error(lambda: load(paths)[0], ConfigError)

    assert isinstance(found, Config) or key.split(".")[0] in found.found


@given(st.text(max_size=60))
def test_any_override_is_taken_or_refused(tmp_path_factory, override):
    paths = Paths(etc=tmp_path_factory.mktemp("override"))

    found = value_or_error(lambda: load(paths, [override])[0], ConfigError)

    assert isinstance(found, Config) or found.hint


@given(st.text(max_size=80), st.text(max_size=10))
def test_the_place_of_a_key_is_none_or_a_line_of_the_text(text, key):
    line = line_of(text, key)

    assert line is None or 1 <= line <= len(text.splitlines())


def test_the_place_of_a_quoted_key_is_found():
    text = '[log.modules]\n"hostagent.xen" = "debug"'

    assert tomllib.loads(text)
    assert line_of(text, "log.modules.hostagent.xen") == 2
