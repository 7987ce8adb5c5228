"""XML-RPC: bytes as the protocol's reference has them, what clients send and read, and hostile bytes."""

from __future__ import annotations

import datetime as dt
import json
import math
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostagent.api import xmlrpc as wire
from hostagent.api.rendered import Rendered
from hostagent.api.xmlrpc import DEPTH_LIMIT, MalformedError, bare, failure, parse_call, success
from hostagent.api.xmlvalues import value_text
from hostagent.db.datatype import DataType, Kind, parse
from hostagent.errors import CallerError, InvalidValueError
from tests.pure.model_values import BATCH, MODEL, typed_values, values, xml_text


def request(*params: str, method: str = "VM.start") -> bytes:
    """A request with parameters given as XML."""
    inside = "".join(f"<param>{param}</param>" for param in params)
    return f"<methodCall><methodName>{method}</methodName><params>{inside}</params></methodCall>".encode()


def value_of(inside: str) -> object:
    """What the agent takes the one parameter `<value>inside</value>` for."""
    _, (value,) = parse_call(request(f"<value>{inside}</value>"))
    return value


def shown(notation: str, value: object) -> str:
    return value_text(parse(notation), value, MODEL)


def loaded(reply: bytes) -> Any:
    """The value in a reply, as Python's client reads it."""
    ((value,), _) = xmlrpc.client.loads(reply)
    return value


def seen_by_client(kind: DataType, value: Any) -> object:
    """What Python's client makes of a kept value of that type."""
    match kind.kind:
        case Kind.INT:
            return str(value)
        case Kind.FLOAT:
            return float(f"{value:.16g}")
        case Kind.DATETIME:
            return xmlrpc.client.DateTime(value)
        case Kind.SET:
            return [seen_by_client(kind.of(), item) for item in value]
        case Kind.MAP:
            return {key: seen_by_client(kind.of(), item) for key, item in value.items()}
        case Kind.OPTION:
            return "" if value == "" else seen_by_client(kind.of(), value)
        case Kind.RECORD if kind == BATCH:
            return value | {
                "events": [seen_by_client(DataType(Kind.RECORD, "event"), each) for each in value["events"]]
            }
        case Kind.RECORD if kind.name in MODEL.classes:
            return {name: seen_by_client(type_in(kind, name, value), item) for name, item in value.items()}
    return value


def type_in(record: DataType, name: str, value: dict[str, str]) -> DataType:
    """The type of a field of a record; an event's snapshot is of the class that the event names."""
    if (record.name, name) == ("event", "snapshot"):
        return DataType(Kind.RECORD, MODEL.by_event_name[value["class"]])
    return MODEL.cls(record.name).fields[name].type


# --- replies ---


def test_a_success_is_the_bytes_of_the_reference():
    assert success(parse("int"), 1500, MODEL) == (
        b"<methodResponse><params><param><value><struct>"
        b"<member><name>Status</name><value>Success</value></member>"
        b"<member><name>Value</name><value>1500</value></member></struct></value></param></params></methodResponse>"
    )


def test_a_failure_is_the_bytes_of_the_reference():
    assert failure("HANDLE_INVALID", ["PIF", "OpaqueRef:22"]) == (
        b"<methodResponse><params><param><value><struct>"
        b"<member><name>Status</name><value>Failure</value></member>"
        b"<member><name>ErrorDescription</name><value><array><data><value>HANDLE_INVALID</value>"
        b"<value>PIF</value><value>OpaqueRef:22</value></data></array></value></member>"
        b"</struct></value></param></params></methodResponse>"
    )


def test_a_list_of_methods_has_no_envelope():
    assert bare(parse("string set"), ["a.b", "c.d"], MODEL) == (
        b"<methodResponse><params><param><value><array><data><value>a.b</value><value>c.d</value></data></array>"
        b"</value></param></params></methodResponse>"
    )


@pytest.mark.parametrize(
    ("notation", "value", "text"),
    [
        ("string", 'a <b> & "c"', "<value>a &lt;b&gt; &amp; &quot;c&quot;</value>"),
        ("string", "", "<value></value>"),
        ("string", " a\tb\r\nc ", "<value> a\tb&#13;\nc </value>"),
        ("string", "a\x00\x1b\ud800\uffffb", "<value>ab</value>"),
        ("string", "\x85\u2028\xad\U0001f600", "<value>\x85\u2028\xad\U0001f600</value>"),
        ("secret string", "s", "<value>s</value>"),
        ("enum vm_power_state", "Running", "<value>Running</value>"),
        ("VM ref", "OpaqueRef:NULL", "<value>OpaqueRef:NULL</value>"),
        ("int", -(1 << 63), "<value>-9223372036854775808</value>"),
        ("float", 0.1, "<value><double>0.1</double></value>"),
        ("float", 1 / 3, "<value><double>0.3333333333333333</double></value>"),
        ("float", 0, "<value><double>0</double></value>"),
        ("float", math.nan, "<value><double>0</double></value>"),
        ("float", -math.inf, "<value><double>0</double></value>"),
        ("bool", True, "<value><boolean>1</boolean></value>"),
        ("bool", False, "<value><boolean>0</boolean></value>"),
        (
            "datetime",
            "20260821T02:00:23Z",
            "<value><dateTime.iso8601>20260821T02:00:23Z</dateTime.iso8601></value>",
        ),
        ("void", "", "<value></value>"),
        ("int set", [1, 2], "<value><array><data><value>1</value><value>2</value></data></array></value>"),
        ("int set", [], "<value><array><data></data></array></value>"),
        (
            "(int -> float) map",
            {"0": 1.5},
            "<value><struct><member><name>0</name><value><double>1.5</double></value></member></struct></value>",
        ),
        (
            "(string -> string) map",
            {"<a>\x00": "1"},
            "<value><struct><member><name>&lt;a&gt;</name><value>1</value></member></struct></value>",
        ),
        ("string option", "", "<value></value>"),
        ("string option", "x", "<value>x</value>"),
        (
            "VDI record",
            {"virtual_size": 5, "managed": True, "no_field": 6, "nor_this": [None, False, 0.5]},
            (
                "<value><struct><member><name>virtual_size</name><value>5</value></member>"
                "<member><name>managed</name><value><boolean>1</boolean></value></member>"
                "<member><name>no_field</name><value>6</value></member>"
                "<member><name>nor_this</name><value><array><data><value></value><value><boolean>0</boolean></value>"
                "<value><double>0.5</double></value></data></array></value></member></struct></value>"
            ),
        ),
    ],
)
def test_each_type_is_sent_as_the_reference_says(notation, value, text):
    assert shown(notation, value) == text


def test_an_event_batch_counts_in_i4_and_its_snapshots_are_of_their_class():
    event = {
        "id": "12",
        "timestamp": "0.0",
        "class": "vdi",
        "operation": "mod",
        "ref": "OpaqueRef:1",
        "snapshot": {"virtual_size": 7, "snapshot_time": "20260821T02:00:23Z"},
    }

    text = shown("an event batch", {"events": [event], "valid_ref_counts": {"vdi": 1}, "token": "1,2"})

    assert text == (
        "<value><struct><member><name>events</name><value><array><data><value><struct>"
        "<member><name>id</name><value>12</value></member>"
        "<member><name>timestamp</name><value>0.0</value></member>"
        "<member><name>class</name><value>vdi</value></member>"
        "<member><name>operation</name><value>mod</value></member>"
        "<member><name>ref</name><value>OpaqueRef:1</value></member>"
        "<member><name>snapshot</name><value><struct>"
        "<member><name>virtual_size</name><value>7</value></member>"
        "<member><name>snapshot_time</name>"
        "<value><dateTime.iso8601>20260821T02:00:23Z</dateTime.iso8601></value></member>"
        "</struct></value></member></struct></value></data></array></value></member>"
        "<member><name>valid_ref_counts</name><value><struct>"
        "<member><name>vdi</name><value><i4>1</i4></value></member></struct></value></member>"
        "<member><name>token</name><value>1,2</value></member></struct></value>"
    )


def test_a_snapshot_of_no_known_class_goes_by_its_values():
    text = shown("event record set", [{"class": "nothing", "snapshot": {"a": True}}])

    assert "<member><name>a</name><value><boolean>1</boolean></value></member>" in text


@pytest.mark.parametrize("name", sorted(MODEL.classes))
def test_a_fresh_record_of_every_class_reaches_the_client_with_all_its_fields(name):
    kind = DataType(Kind.RECORD, name)
    record = {field.name: field.fill for field in MODEL.cls(name).public}
    if name == "event":
        record["class"] = "vm"

    reply = loaded(success(kind, record, MODEL))

    assert reply == {"Status": "Success", "Value": seen_by_client(kind, record)}


@given(typed_values())
def test_pythons_client_reads_every_value_of_every_type(typed):
    kind, value = typed

    reply = loaded(success(kind, value, MODEL))

    assert reply == {"Status": "Success", "Value": seen_by_client(kind, value)}


@given(values(BATCH))
def test_pythons_client_reads_every_event_batch(batch):
    reply = loaded(bare(BATCH, batch, MODEL))

    assert reply == seen_by_client(BATCH, batch)


@given(typed_values())
def test_rendered_json_gives_the_bytes_of_its_value(typed):
    kind, value = typed

    assert success(kind, Rendered(json.dumps(value)), MODEL) == success(kind, value, MODEL)


@given(st.text(), st.lists(st.text(st.characters()), max_size=3))
def test_any_error_text_makes_xml(code, params):
    reply = loaded(failure(code, params))

    assert reply["Status"] == "Failure"
    assert len(reply["ErrorDescription"]) == 1 + len(params)


# --- requests ---


def test_a_request_is_read_as_in_the_reference():
    body = (
        b"<methodCall><methodName>PIF.get_MTU</methodName><params>\n"
        b" <param><value>OpaqueRef:11</value></param><param><value>OpaqueRef:22</value></param></params></methodCall>"
    )

    assert parse_call(body) == ("PIF.get_MTU", ["OpaqueRef:11", "OpaqueRef:22"])


@pytest.mark.parametrize(
    ("inside", "value"),
    [
        ("", ""),
        ("  a b ", "  a b "),
        ("\n", "\n"),
        ("<string> a </string>", " a "),
        ("\n <string>a</string>\n", "a"),
        ("<string/>", ""),
        ("a<!-- c -->b &amp;&#65;<![CDATA[<x>]]>", "ab &A<x>"),
        ("100", "100"),
        ("<int>5</int>", 5),
        ("<i4> -5 </i4>", -5),
        ("<i8>9223372036854775807</i8>", (1 << 63) - 1),
        ("<double>1.5</double>", 1.5),
        ("<double>-1e3</double>", -1000.0),
        ("<double>inf</double>", math.inf),
        ("<boolean>1</boolean>", True),
        ("<boolean>0</boolean>", False),
        ("<dateTime.iso8601>2026-08-21T02:00:23Z</dateTime.iso8601>", "2026-08-21T02:00:23Z"),
        ("<array><data/></array>", []),
        ("<array> <data> <value>a</value> <value><i4>1</i4></value> </data> </array>", ["a", 1]),
        ("<struct/>", {}),
        (
            "<struct> <member> <name> k </name> <value><boolean>1</boolean></value> </member> </struct>",
            {" k ": True},
        ),
    ],
)
def test_what_clients_send_is_read(inside, value):
    read = value_of(inside)

    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "body",
    [
        request(method=" system.listMethods\n"),
        b"<methodCall><methodName>system.listMethods</methodName></methodCall>",
        b"<methodCall>\n<methodName>system.listMethods</methodName>\n<params/>\n</methodCall>\n",
        b"\xef\xbb\xbf" + request(method="system.listMethods"),
        b'<?xml version="1.0" encoding="ISO-8859-1"?><!-- x -->' + request(method="system.listMethods"),
    ],
)
def test_parameters_may_be_absent_and_the_declared_encoding_does_not_matter(body):
    assert parse_call(body) == ("system.listMethods", [])


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        ("<nil/>", "<nil> has no place"),
        ("<base64>YQ==</base64>", "<base64> has no place"),
        ("<value/>", "<value> has no place"),
        ("<int>x</int>", "no integer"),
        ("<int/>", "no integer"),
        ("<i8>9223372036854775808</i8>", "no integer"),
        ("<int>" + "9" * 100_000 + "</int>", "no integer"),
        ("<int>1_0</int>", "no integer"),
        ("<double>1_0</double>", "no number"),
        ("<double/>", "no number"),
        ("<boolean>true</boolean>", "no boolean"),
        ("x<int>1</int>", "text beside"),
        ("<int>1</int>x", "text has no place"),
        ("<int>1</int><int>1</int>", "<int> has no place"),
        ("<string><int>1</int></string>", "<int> has no place"),
        ("<array/>", "lacks <data>"),
        ("<array><data/><data/></array>", "<data> has no place"),
        ("<array><value/></array>", "<value> has no place"),
        ("<array><data>x</data></array>", "text has no place"),
        ("<struct><member><name>a</name></member></struct>", "lacks <value>"),
        ("<struct><member/></struct>", "lacks <name>"),
        ("<struct><member><value/><name>a</name></member></struct>", "<value> has no place"),
        ("<struct><value/></struct>", "<value> has no place"),
        (f"<struct>{'<member><name>a</name><value/></member>' * 2}</struct>", "a member twice"),
        ("&bomb;", "not XML"),
        ("\x01", "not XML"),
        ("<x:string xmlns:x='y'/>", "has no place"),
    ],
)
def test_a_value_of_wrong_shape_is_malformed(inside, told):
    with pytest.raises(MalformedError, match=told) as caught:
        value_of(inside)

    assert caught.value.hint
    assert len(caught.value.found) < 150


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"{}",
        b"<",
        b"<methodCall/>",
        b"<methodCall><params/></methodCall>",
        b"<methodCall><methodName/></methodCall>",
        b"<methodCall><methodName> </methodName></methodCall>",
        b"<methodCall><methodName>a</methodName><methodName>a</methodName></methodCall>",
        b"<methodCall><methodName>a</methodName><params/><params/></methodCall>",
        b"<methodCall><methodName>a</methodName><params><param/></params></methodCall>",
        b"<methodCall><methodName>a</methodName><params><param><value/><value/></param></params></methodCall>",
        b"<methodCall><methodName>a</methodName>",
        b"<methodResponse><params/></methodResponse>",
        b"<value/>",
        b"<html><body>no</body></html>",
        request() * 2,
        request() + b"x",
        request().decode().encode("utf-16"),
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x">' + request(),
        b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/shadow">]>' + request("<value>&e;</value>"),
        b'<!DOCTYPE a [<!ENTITY % e SYSTEM "file:///etc/shadow"> %e;]>' + request(),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_is_no_call_is_malformed(body):
    with pytest.raises(MalformedError):
        parse_call(body)


def test_an_entity_bomb_is_refused_before_it_is_opened():
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 30))
    bomb = f'<!DOCTYPE b [<!ENTITY e0 "boom">{levels}]>'.encode() + request("<value>&e29;</value>")

    with pytest.raises(MalformedError, match="entities"):
        parse_call(bomb)


def nested(levels: int) -> bytes:
    half = levels // 2
    opening = "<array><data><value>" * half + "<struct><member><name>a</name><value>" * (levels - half)
    closing = "</value></member></struct>" * (levels - half) + "</value></data></array>" * half
    return request(f"<value>{opening}{closing}</value>")


@pytest.mark.parametrize("levels", [DEPTH_LIMIT + 1, 10_000])
def test_nesting_beyond_the_limit_is_malformed(levels):
    with pytest.raises(MalformedError, match="nested deeper"):
        parse_call(nested(levels))


def test_nesting_up_to_the_limit_is_read():
    _, (value,) = parse_call(nested(DEPTH_LIMIT))
    levels = 0
    while isinstance(value, list | dict):
        (value,) = value if isinstance(value, list) else value.values()
        levels += 1

    assert levels == DEPTH_LIMIT


def test_arrays_beside_each_other_do_not_count_as_depth():
    assert (
        value_of(f"<array><data>{'<value><array><data/></array></value>' * 500}</data></array>") == [[]] * 500
    )


def test_the_number_of_values_is_limited(monkeypatch):
    monkeypatch.setattr(wire, "VALUE_LIMIT", 10)
    members = [f"<member><name>{n}</name><value/></member>" for n in range(10)]

    assert len(value_of(f"<struct>{''.join(members[:9])}</struct>")) == 9  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="more than 10 values"):
        value_of(f"<struct>{''.join(members)}</struct>")


def test_a_parameter_that_is_not_utf8_is_an_invalid_value_that_is_not_repeated():
    body = request("<value>root</value>", "<value>s\xe9cret</value>").decode().encode("latin-1")

    with pytest.raises(InvalidValueError) as caught:
        parse_call(body)

    offset = body.index(b"\xe9")
    assert caught.value.params == ("parameter 2", f"byte 0xe9 at offset {offset} is not UTF-8")


@pytest.mark.parametrize(
    "body",
    [request(method="VM.st\xe4rt").decode().encode("latin-1"), request() + b"\xff", b"\xff", b"<a>\xff</a>"],
)
def test_bytes_outside_of_parameters_that_are_not_utf8_are_malformed(body):
    with pytest.raises(MalformedError):
        parse_call(body)


sendable = st.recursive(
    xml_text.map(
        lambda text: text.replace("\r", "\n")
    )  # Python's client does not escape it, so XML makes it a \n
    | st.integers(-(1 << 31), (1 << 31) - 1)
    | st.floats()
    | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(xml_text.map(lambda text: text.replace("\r", "\n")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(sendable, max_size=4).map(tuple), st.sampled_from([None, "us-ascii", "utf-8"]))
def test_what_pythons_client_sends_arrives(params, encoding):
    body = xmlrpc.client.dumps(params, "VM.create", encoding=encoding)

    method, arrived = parse_call(
        body.encode(errors="xmlcharrefreplace" if encoding == "us-ascii" else "strict")
    )

    assert method == "VM.create"
    assert repr(arrived) == repr(list(params))  # NaN is not equal to itself


@given(st.datetimes(min_value=dt.datetime(1000, 1, 1)))  # noqa: DTZ001 - Python's client sends them without a zone
def test_moments_arrive_as_the_text_that_was_sent(when):
    wanted = ["VM.x", [when.strftime("%Y%m%dT%H:%M:%S")] * 2]

    body = xmlrpc.client.dumps((when, xmlrpc.client.DateTime(when)), "VM.x").encode()

    assert list(parse_call(body)) == wanted


@pytest.mark.parametrize("value", [None, b"bytes", xmlrpc.client.Binary(b"bytes")])
def test_nil_and_base64_of_pythons_client_are_refused(value):
    with pytest.raises(MalformedError, match="has no place in <value>"):
        parse_call(xmlrpc.client.dumps((value,), "VM.x", allow_none=True).encode())


PIECES = [
    "methodCall",
    "methodName",
    "params",
    "param",
    "value",
    "string",
    "int",
    "boolean",
    "double",
    "array",
    "data",
    "struct",
    "member",
    "name",
]
tokens = st.sampled_from(
    [f"<{name}>" for name in PIECES] + [f"</{name}>" for name in PIECES] + [f"<{name}/>" for name in PIECES]
)


def only_clean_errors(body: bytes) -> None:
    try:
        method, params = parse_call(body)
    except CallerError as error:
        assert isinstance(error, MalformedError | InvalidValueError)  # noqa: PT017 - other kinds are the defect
    else:
        assert method
        assert isinstance(params, list)


@given(st.binary(max_size=200))
@example(b"<?xml version='1.0' encoding='no-such'?><a/>")
def test_any_bytes_are_a_call_or_cleanly_refused(body):
    only_clean_errors(body)


@given(
    st.lists(tokens | st.sampled_from(["1", " ", "&amp;", "&x;", "<!--", "-->"]), max_size=20).map("".join)
)
def test_any_order_of_elements_is_a_call_or_cleanly_refused(text):
    only_clean_errors(text.encode())
    only_clean_errors(request(text))
    only_clean_errors(request(f"<value>{text}</value>"))


@given(st.lists(sendable, max_size=3).map(tuple), st.data())
def test_a_request_with_a_wound_is_a_call_or_cleanly_refused(params, data):
    body = xmlrpc.client.dumps(params, "VM.create").encode()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))

    only_clean_errors(body[:start] + data.draw(st.binary(max_size=4)) + body[end:])
    only_clean_errors(body[:end] + body[start:])
    only_clean_errors(body[:end])


LONG = wire.PIECE_BYTES * 3


@pytest.mark.parametrize(
    ("opening", "told"),
    [
        (
            "<methodCall " + " ".join(f'a{number}="1"' for number in range(LONG // 8)) + ">",
            "a tag or comment of",
        ),
        ("<methodCall " + " ".join(f'a{number}=""' for number in range(9)) + ">", "has 9 attributes"),
        (f"<!--{'x' * LONG}--><methodCall>", "a tag or comment of"),
        (f"<{'x' * LONG}>", "a tag or comment of"),
    ],
)
def test_a_tag_of_megabytes_is_refused(opening, told):
    body = f"{opening}<methodName>a.b</methodName></methodCall>".encode()
    with pytest.raises(MalformedError, match=told):
        parse_call(body)


@pytest.mark.parametrize("size", [1, wire.PIECE_BYTES, LONG, 20 * LONG])
@pytest.mark.parametrize("unit", ["x", "é", "\n", "€&amp;", "<!-- -->"])
def test_a_long_text_arrives_whole(size, unit):
    text = unit * (size // len(unit.encode()) + 1)
    body = (
        f'<methodCall xmlns:ex="urn:x" a="1"><methodName>a.b</methodName><params><param><value><string>{text}'
    )
    body += "</string></value></param></params></methodCall>"
    expected = text.replace("&amp;", "&").replace("<!-- -->", "")
    assert parse_call(body.encode()) == ("a.b", [expected])
