"""What was done to the network: kept in a file that stays small, and read past what is broken in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import history
from hostagent.net.history import Done, Entry


def entry(number=0, **changed):
    made = Entry(1000.0 + number, f"up PIF {number}", "changed", 0.01, "interface-reconfigure", "abcd")
    return made._replace(**changed)


def test_what_is_appended_is_read_newest_first(tmp_path):
    entries = [history.entry_of(entry(n), [Done("link-add", "xapi1", 0.25)]) for n in range(3)]
    for one in entries:
        history.append(tmp_path / "net", one)

    assert history.read(tmp_path / "net") == tuple(reversed(entries))
    assert history.read(tmp_path / "net", most=1) == (entries[-1],)
    assert (tmp_path / "net" / history.NAME).stat().st_mode & 0o777 == 0o600


def test_an_entry_of_before_has_no_arguments(tmp_path):
    old = b'[1000.0,"up","changed",0.1,"me","d",1,[["link-add","xapi1",0.25]],[]]'

    found = history.decode(old)
    assert found is not None
    assert found.steps == (Done("link-add", "xapi1", 0.25),)
    assert history.decode(old.replace(b"0.25", b'0.25,"a=b","more"')) is None


def test_arguments_have_no_content_of_files_and_an_end():
    secret = {"path": "/etc/x", "content": "psk=secret\n"}

    assert history.done("file", "", secret, 1.0).args == "path=/etc/x size=11"
    assert len(history.done("link-set", "a", {"x": "y" * 999}, 1.0).args) == history.ARGS_MOST


def test_no_file_is_no_history(tmp_path):
    assert history.read(tmp_path) == ()


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
    history.append(tmp_path, entry(1))
    path = tmp_path / history.NAME
    path.write_bytes(path.read_bytes() + b'[1.0,"half')

    assert history.read(tmp_path) == (entry(1),)


def test_the_file_stays_small_and_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "LIMIT_BYTES", 2000)
    monkeypatch.setattr(history, "KEPT_BYTES", 1000)
    for number in range(100):
        history.append(tmp_path, entry(number))
        assert (tmp_path / history.NAME).stat().st_size <= 2000

    kept = history.read(tmp_path)
    assert kept[0] == entry(99)
    assert kept == tuple(entry(99 - n) for n in range(len(kept)))
    assert len(kept) > 5


def test_the_slowest_operations_of_a_large_plan_are_kept_in_their_order():
    steps = [Done("link-add", f"v{n}", float(n % 2000)) for n in range(3000)]

    kept = history.entry_of(entry(), steps)

    assert (kept.total, len(kept.steps)) == (3000, history.STEPS)
    assert min(step.milliseconds for step in kept.steps) >= 1000
    assert list(kept.steps) == [step for step in steps if step in set(kept.steps)]


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_line_is_an_entry_or_none(line):
    assert history.decode(line) is None or isinstance(history.decode(line), Entry)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(values, min_size=9, max_size=9))
def test_a_line_of_other_values_is_none_or_whole(line):
    import json

    found = history.decode(json.dumps(line).encode())

    assert found is None or isinstance(found.what, str)
