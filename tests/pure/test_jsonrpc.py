"""Bytes in, bytes out: whatever arrives, the reply is valid JSON-RPC 2.0 and nothing is raised."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostagent.api import jsonrpc
from hostagent.api.jsonrpc import BATCH_LIMIT, DEPTH_LIMIT, Fault

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
request_like = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "method": st.sampled_from(["echo", "fail"]) | json_values,
        "params": json_values,
        "id": json_values,
    },
)


def call(name: str, params: list[object]) -> object:
    """`echo` gives its parameters back, anything else fails as an application does."""
    if name == "echo":
        return params
    raise Fault(1, "HANDLE_INVALID", ["VM", "OpaqueRef:1"])


def ask(message: object) -> object:
    reply = jsonrpc.answer(json.dumps(message).encode(), call)
    return None if reply is None else json.loads(reply)


def request(**members: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": "echo", "id": 1, **members}


def error_of(reply: object) -> dict[str, object]:
    assert isinstance(reply, dict)
    assert "result" not in reply
    return dict(reply["error"])


def assert_valid_reply(reply: object) -> None:
    assert isinstance(reply, dict)
    assert reply["jsonrpc"] == "2.0"
    assert isinstance(reply["id"], str | int | None)
    assert ("result" in reply) != ("error" in reply)
    if "error" in reply:
        assert set(reply["error"]) == {"code", "message", "data"}
        assert isinstance(reply["error"]["code"], int)
        assert isinstance(reply["error"]["message"], str)
        assert all(isinstance(item, str) for item in reply["error"]["data"])


def test_a_request_gets_its_result_and_its_id():
    assert ask(request(params=["a", 1], id="x")) == {"jsonrpc": "2.0", "result": ["a", 1], "id": "x"}


def test_an_application_error_has_the_shape_of_xapi():
    reply = ask(request(method="fail", id=7))

    assert reply == {
        "jsonrpc": "2.0",
        "error": {"code": 1, "message": "HANDLE_INVALID", "data": ["VM", "OpaqueRef:1"]},
        "id": 7,
    }


@pytest.mark.parametrize("params", [None, []])
def test_no_parameters_may_be_absent_null_or_empty(params):
    assert ask(request(params=params)) == {"jsonrpc": "2.0", "result": [], "id": 1}


def test_an_object_counts_as_one_struct_parameter():
    assert ask(request(params={"a": 1})) == {"jsonrpc": "2.0", "result": [{"a": 1}], "id": 1}


@pytest.mark.parametrize("method", ["echo", "fail"])
def test_a_notification_gets_no_reply(method):
    assert ask({"jsonrpc": "2.0", "method": method}) is None


def test_a_batch_is_answered_without_its_notifications():
    batch = [request(id=1), {"jsonrpc": "2.0", "method": "echo"}, request(id=2, method="fail"), 5]

    replies = ask(batch)

    assert isinstance(replies, list)
    assert [reply["id"] for reply in replies] == [1, 2, None]
    assert [reply["error"]["code"] for reply in replies[1:]] == [1, jsonrpc.INVALID_REQUEST]


def test_a_batch_of_notifications_gets_no_reply():
    assert ask([{"jsonrpc": "2.0", "method": "echo"}] * 3) is None


@pytest.mark.parametrize("batch", [[], [request()] * (BATCH_LIMIT + 1)], ids=["empty", "too long"])
def test_a_batch_out_of_bounds_is_one_invalid_request(batch):
    assert error_of(ask(batch))["code"] == jsonrpc.INVALID_REQUEST


@pytest.mark.parametrize(
    "message",
    [
        5,
        "echo",
        None,
        {"method": "echo", "id": 1},
        request(jsonrpc="1.0"),
        request(jsonrpc=2.0),
        request(method=5),
        request(params="a"),
        request(params=5),
        request(id=True),
        request(id=1.5),
        request(id=[1]),
        request(id={"a": 1}),
    ],
)
def test_a_malformed_request_is_invalid_and_has_no_id(message):
    reply = ask(message)

    assert isinstance(reply, dict)
    assert error_of(reply)["code"] == jsonrpc.INVALID_REQUEST
    assert reply["id"] is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        "{}".encode("utf-16"),
        b'{"id": NaN}',
        b'{"id": -Infinity}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        b"[1,]",
    ],
    ids=lambda body: repr(body[:8]),
)
def test_what_is_not_json_is_a_parse_error(body):
    reply = jsonrpc.answer(body, call)

    assert reply is not None
    assert error_of(json.loads(reply))["code"] == jsonrpc.PARSE_ERROR


@pytest.mark.parametrize(("levels", "refused"), [(DEPTH_LIMIT, False), (DEPTH_LIMIT + 1, True)])
def test_the_depth_limit_counts_the_request_itself(levels, refused):
    inside = levels - 2  # the request object and its parameter list
    body = b'{"jsonrpc":"2.0","method":"echo","id":1,"params":[' + b"[" * inside + b"]" * inside + b"]}"

    reply = json.loads(jsonrpc.answer(body, call) or b"null")

    assert ("error" in reply) == refused


def test_brackets_in_text_do_not_count_as_depth():
    text = "[" * 1000

    assert ask(request(params=[text])) == {"jsonrpc": "2.0", "result": [text], "id": 1}


def test_a_lone_surrogate_in_an_id_comes_back_unharmed():
    body = b'{"jsonrpc":"2.0","method":"echo","id":"\\ud800"}'

    assert json.loads(jsonrpc.answer(body, call) or b"null")["id"] == "\ud800"


@given(st.binary(max_size=300))
@example(b'{"jsonrpc":"2.0","method":"echo","id":1e999}')
def test_any_bytes_get_a_valid_reply(body):
    reply = jsonrpc.answer(body, call)

    assert reply is not None
    assert_valid_reply(json.loads(reply))


@given(request_like | json_values.filter(lambda value: not isinstance(value, list)))
def test_any_json_gets_a_valid_reply_or_none(message):
    reply = jsonrpc.answer(json.dumps(message).encode(), call)

    if reply is not None:
        assert_valid_reply(json.loads(reply))


@given(st.lists(request_like | json_values, min_size=1, max_size=5))
def test_any_batch_gets_valid_replies_or_none(batch):
    reply = jsonrpc.answer(json.dumps(batch).encode(), call)

    if reply is not None:
        replies = json.loads(reply)
        assert isinstance(replies, dict) or 0 < len(replies) <= len(batch)
        for one in [replies] if isinstance(replies, dict) else replies:
            assert_valid_reply(one)
