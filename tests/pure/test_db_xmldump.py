"""The XML format of a pool's database: what it looks like, that nothing is lost in it, and what is refused."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.db import sexpr, xmldump
from hostagent.db.database import open_database
from hostagent.db.datatype import NOT_IN_XML, NULL_REF, Kind, zero
from hostagent.db.model import load

MODEL = load()
TEXT = st.text().filter(lambda text: not NOT_IN_XML.search(text))
HEAD = '<database><manifest><pair key="schema_major_vsn" value="5"/></manifest>'


@pytest.fixture
def fresh(tmp_path):
    opened = []

    def make(name):
        opened.append(open_database(tmp_path / f"{name}.db", tmp_path / f"{name}.volatile"))
        return opened[-1]

    yield make
    for db in opened:
        db.close()


def dumped(db) -> bytes:
    with db.read() as view:
        return "".join(xmldump.write(view, MODEL)).encode()


def loaded(db, content: bytes) -> xmldump.Dump:
    dump = xmldump.read(io.BytesIO(content), MODEL)
    with db.write() as w:
        xmldump.load(dump, w, MODEL)
    return dump


def everything(db):
    with db.read() as view:
        return {
            cls.name: dict(view.records(cls.name, internal=True))
            for cls in MODEL.classes.values()
            if cls.counted and cls.persistent
        }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "()"),
        (["a", "b"], "('a' 'b')"),
        ([["order", "cdn"], ["firmware", "bios"]], "(('order' 'cdn') ('firmware' 'bios'))"),
        (["it's", "back\\slash"], r"('it\'s' 'back\\slash')"),
    ],
)
def test_sets_and_maps_are_expressions_of_quoted_text(value, text):
    assert sexpr.write(value) == text
    assert sexpr.read(text) == value


@given(st.recursive(TEXT, lambda inner: st.lists(inner, max_size=4), max_leaves=12))
def test_every_expression_is_read_back(value):
    assert sexpr.read(sexpr.write(value)) == value


@given(st.text("()'\"\\ ab\n", max_size=60))
def test_any_text_is_an_expression_or_refused(text):
    try:
        sexpr.read(text)
    except sexpr.MalformedError:
        pass


@pytest.mark.parametrize("text", ["", "(", ")", "('a'", "'a", "() ()", "(" * 40 + ")" * 40])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(sexpr.MalformedError):
        sexpr.read(text)


@given(TEXT)
def test_an_attribute_keeps_every_text(text):
    escaped = xmldump.escape(text)
    assert not re.search("[ \t\n\r]", escaped)
    assert xmldump.unescape(escaped) == text


def test_two_spaces_have_a_short_form():
    assert xmldump.unescape("a%_b%.c%%.") == "a  b c%."


def test_grouped_names_have_two_underscores(fresh):
    db = fresh("one")
    with db.write() as w:
        vm = w.create(
            "VM", {"name_label": "a guest", "HVM_boot_params": {"order": "cdn"}, "memory_static_max": 1 << 30}
        )
        w.create("task", {"name_label": "passing"})
        w.create("pool", {"name_label": "ours", "name_description": "all"})
    text = dumped(db).decode()
    (row,) = re.findall(r"<row [^>]*>", text.partition('<table name="VM">')[2].partition("</table>")[0])
    assert f'<row ref="{vm}" __ctime="' in row
    for attribute in (
        f'_ref="{vm}"',
        'name__label="a%.guest"',
        "HVM__boot_params=\"(('order'%.'cdn'))\"",
        f'memory__static_max="{1 << 30}"',
        'VCPUs__at_startup="0"',
        'actions__after_shutdown="',
        'is_a_template="false"',
        f'affinity="{NULL_REF}"',
        'snapshot_time="19700101T00:00:00Z"',
        'VIFs="()"',
    ):
        assert attribute in row
    # xapi's data model groups the name of every class but this one
    assert ' name_description="all" name_label="ours" ' in text
    assert '<table name="task"></table>' in text
    assert '<pair key="schema_minor_vsn" value="909"/>' in text


def test_a_dump_read_into_an_empty_database_gives_the_same_objects(fresh):
    one, two = fresh("one"), fresh("two")
    with one.write() as w:
        host = w.create(
            "host", {"metrics": w.create("host_metrics", {}), "other_config": {"a b": "c\td%", "é": "'\\"}}
        )
        update = w.create("pool_update", {"name_label": "u"})
        w.add_to_set("host", host, "updates", update)
        network = w.create("network", {"name_label": "  two  spaces\n", "tags": ["x y", "z"]})
        w.create("PIF", {"host": host, "network": network, "device": "eth0"})
        w.create("VM_metrics", {"numa_node_memory": {"0": 4096}})
        w.create("Cluster_host", {"host": host})
    dump = loaded(two, dumped(one))
    assert dump.unknown == set()
    assert dump.manifest.generation == one.generation
    assert everything(two) == everything(one)
    assert dumped(two).partition(b"</manifest>")[2] == dumped(one).partition(b"</manifest>")[2]


def values(kind):
    """Any value of a type."""
    match kind.kind:
        case Kind.STRING:
            return TEXT
        case Kind.INT:
            return st.integers(-(1 << 63), (1 << 63) - 1)
        case Kind.FLOAT:
            return st.floats(allow_nan=False, allow_infinity=False)
        case Kind.BOOL:
            return st.booleans()
        case Kind.ENUM:
            return st.sampled_from(MODEL.enums[kind.name])
        case Kind.SET:
            return st.lists(values(kind.of()), max_size=3, unique_by=str)
        case Kind.MAP if kind.key.kind is not Kind.REF:
            keys = values(kind.key).map(str).filter(bool)
            return st.dictionaries(keys, values(kind.of()), max_size=3)
    return st.just(zero(kind, MODEL.enums))


FIELDS = [
    (cls, field)
    for cls in MODEL.classes.values()
    if cls.counted and cls.persistent
    for field in cls.fields.values()
    if field.persist and field.name != "uuid" and cls.stored(field.name)
]


@given(st.data())
@settings(max_examples=300)
def test_every_value_of_every_type_is_read_back(data):
    cls, field = data.draw(st.sampled_from(FIELDS))
    value = data.draw(values(field.type))
    text = xmldump.text_of(field.type, value)
    row = xmldump.Row(cls.name, "OpaqueRef:r", 0, 0, {field.name: xmldump.unescape(xmldump.escape(text))})
    assert xmldump.value_of(row, field.name, field.type, MODEL) == value


def test_what_the_model_does_not_know_is_told_and_left_out(fresh):
    content = f'{HEAD}<table name="Quux"><row ref="r"/></table><table name="network">'
    content += '<row ref="OpaqueRef:n" colour="red" name__label="n"/></table></database>'
    db = fresh("one")
    dump = loaded(db, content.encode())
    assert dump.unknown == {"Quux", "network.colour"}
    with db.read() as view:
        assert view.record("network", "OpaqueRef:n")["name_label"] == "n"
        assert view.record("network", "OpaqueRef:n")["MTU"] == 1500


BOMB = '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + HEAD + "&b;</database>"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        b"<database></database>",
        b"<html/>",
        HEAD.encode(),
        b"<database><manifest><pair key='schema_major_vsn' value='6'/></manifest></database>",
        b"<database><manifest><pair key='schema_major_vsn' value='x'/></manifest></database>",
        BOMB.encode(),
        b'<?xml version="1.0" encoding="nonsense"?><database/>',
        f'{HEAD}<table name="network"><row name__label="n"/></table></database>'.encode(),
        f'{HEAD}<table name="network"><row ref="r" __ctime="x"/></table></database>'.encode(),
        HEAD.encode() + b"\xff</database>",
    ],
)
def test_what_is_no_dump_is_refused(content):
    with pytest.raises(xmldump.DumpError) as caught:
        xmldump.read(io.BytesIO(content), MODEL)
    assert caught.value.code == "RESTORE_INCOMPATIBLE_VERSION"


@pytest.mark.parametrize(
    "value", ["MTU=&quot;x&quot;", 'MTU="x"', "tags=\"('a'\"", "other_config=\"('a')\"", 'managed="yes"']
)
def test_a_value_of_another_type_is_refused_whole(fresh, value):
    content = f'{HEAD}<table name="network"><row ref="OpaqueRef:a"/><row ref="OpaqueRef:n" {value}/></table></database>'
    db = fresh("one")
    with pytest.raises(xmldump.DumpError):
        loaded(db, content.encode())
    with db.read() as view:
        assert view.refs("network") == []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_dump_or_refused(content):
    try:
        xmldump.read(io.BytesIO(content), MODEL)
    except xmldump.DumpError:
        pass
