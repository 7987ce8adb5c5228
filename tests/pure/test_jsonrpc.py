"""Bytes in, bytes out: whatever arrives, the reply is valid JSON-RPC 1.0 or 2.0 and nothing is raised."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostagent.api import jsonrpc
from hostagent.api.jsonrpc import BATCH_LIMIT, DEPTH_LIMIT, Call, Fault
from hostagent.api.rendered import Rendered
from tests.pure.model_values import typed_values

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


async def call(name: str, params: list[object]) -> object:
    """`echo` gives its parameters back, anything else fails as an application does."""
    if name == "echo":
        return params
    raise Fault(1, "HANDLE_INVALID", ["VM", "OpaqueRef:1"])


def answer(body: bytes, call: Call = call) -> bytes | None:
    """The reply; no call here waits for anything, so that no event loop is needed."""
    if len(body) > jsonrpc.LARGE:
        return asyncio.run(jsonrpc.answer(body, call))
    running = jsonrpc.answer(body, call)
    with pytest.raises(StopIteration) as done:
        running.send(None)
    reply: bytes | None = done.value.value
    return reply


def returning(result: object) -> Call:
    """A call that gives that result, whichever is asked."""

    async def run(_name: str, _params: list[object]) -> object:
        return result

    return run


def ask(message: object) -> object:
    reply = answer(json.dumps(message).encode())
    return None if reply is None else json.loads(reply)


def request(**members: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": "echo", "id": 1, **members}


def error_of(reply: object) -> dict[str, object]:
    assert isinstance(reply, dict)
    assert "result" not in reply
    return dict(reply["error"])


def assert_valid_reply(reply: object) -> None:
    assert isinstance(reply, dict)
    if "jsonrpc" not in reply:
        assert set(reply) == {"result", "error", "id"}
        assert isinstance(reply["id"], str | int | None)
        assert reply["error"] is None or all(isinstance(item, str) for item in reply["error"])
        return
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
        request(jsonrpc="1.0"),
        request(jsonrpc=None),
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


# --- JSON-RPC 1.0 ---


def test_a_request_of_1_0_gets_a_reply_of_1_0():
    body = b'{"method":"echo","params":["a",1],"id":"x"}'

    assert answer(body) == b'{"result":["a",1],"error":null,"id":"x"}'


def test_an_error_of_1_0_is_the_array_of_code_and_parameters():
    body = b'{"method":"fail","params":[],"id":7}'

    assert answer(body) == b'{"result":null,"error":["HANDLE_INVALID","VM","OpaqueRef:1"],"id":7}'


@pytest.mark.parametrize(
    ("params", "arrive"), [({}, []), ({"params": None}, []), ({"params": {"a": 1}}, [{"a": 1}])]
)
def test_parameters_of_1_0_may_be_absent_null_or_one_object(params, arrive):
    assert ask({"method": "echo", "id": 1, **params}) == {"result": arrive, "error": None, "id": 1}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"method": "echo"},
        {"method": "echo", "id": None},
        {"method": "echo", "id": 1.5},
        {"method": 5, "id": 1},
        {"method": "echo", "id": 1, "params": "a"},
    ],
)
def test_a_malformed_request_of_1_0_is_invalid(message):
    reply = ask(message)

    assert isinstance(reply, dict)
    assert (reply["result"], reply["id"]) == (None, None)
    assert reply["error"][0] == "Invalid Request"
    assert len(reply["error"]) == 2


def test_a_batch_holds_requests_of_2_0_only():
    replies = ask([{"method": "echo", "id": 1}])

    assert isinstance(replies, list)
    assert error_of(replies[0])["code"] == jsonrpc.INVALID_REQUEST


# --- results ---


def test_a_reply_of_2_0_is_the_bytes_of_the_reference():
    body = json.dumps(request(id="x")).encode()

    assert answer(body) == b'{"jsonrpc":"2.0","result":[],"id":"x"}'
    assert answer(body.replace(b"echo", b"fail")) == (
        b'{"jsonrpc":"2.0","error":{"code":1,"message":"HANDLE_INVALID","data":["VM","OpaqueRef:1"]},"id":"x"}'
    )


@pytest.mark.parametrize("version", [{}, {"jsonrpc": "2.0"}])
def test_rendered_text_is_spliced_in_untouched(version):
    body = json.dumps({"method": "echo", "id": 1, **version}).encode()

    reply = answer(body, returning(Rendered('{"a" : 1.50, "b":"\u00e9\ud800"}')))

    assert reply is not None
    assert b'"result":{"a" : 1.50, "b":"\xc3\xa9\\ud800"}' in reply
    assert json.loads(reply)["result"] == {"a": 1.5, "b": "\u00e9\ud800"}


def test_rendered_text_is_spliced_into_a_batch():
    batch = json.dumps([request(id=1), request(id=2)]).encode()

    replies = json.loads(answer(batch, returning(Rendered('["a"]'))) or b"null")

    assert [(reply["id"], reply["result"]) for reply in replies] == [(1, ["a"]), (2, ["a"])]


def test_what_is_no_number_in_json_is_sent_as_0():
    result = {"a": [math.nan, 1.5, -math.inf], "b": ({"c": math.inf},)}

    reply = answer(json.dumps(request()).encode(), returning(result))

    assert reply == b'{"jsonrpc":"2.0","result":{"a":[0,1.5,0],"b":[{"c":0}]},"id":1}'


@given(typed_values(), st.sampled_from([{}, {"jsonrpc": "2.0"}]))
def test_every_value_of_every_type_arrives_also_rendered(typed, version):
    _, value = typed
    body = json.dumps({"method": "VM.x", "params": [value], "id": 1, **version}).encode()

    async def echo(_name: str, params: list[object]) -> object:
        return params[0]

    for run in (
        echo,
        returning(Rendered(json.dumps(value))),
        returning(Rendered(json.dumps(value, ensure_ascii=False))),
    ):
        assert json.loads(answer(body, run) or b"null")["result"] == value


def test_a_call_that_waits_does_not_hold_up_another():
    async def run() -> list[bytes | None]:
        changed = asyncio.Event()

        async def wait_or_change(name: str, _params: list[object]) -> object:
            if name == "event.from":
                await changed.wait()
            changed.set()
            return name

        bodies = [json.dumps(request(method=name)).encode() for name in ("event.from", "VM.start")]
        return await asyncio.gather(*(jsonrpc.answer(body, wait_or_change) for body in bodies))

    replies = asyncio.run(run())

    assert [json.loads(reply or b"null")["result"] for reply in replies] == ["event.from", "VM.start"]


# --- bytes ---


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
    reply = answer(body)

    assert reply is not None
    assert error_of(json.loads(reply))["code"] == jsonrpc.PARSE_ERROR


@pytest.mark.parametrize(("levels", "refused"), [(DEPTH_LIMIT, False), (DEPTH_LIMIT + 1, True)])
def test_the_depth_limit_counts_the_request_itself(levels, refused):
    inside = levels - 2  # the request object and its parameter list
    body = b'{"jsonrpc":"2.0","method":"echo","id":1,"params":[' + b"[" * inside + b"]" * inside + b"]}"

    reply = json.loads(answer(body) or b"null")

    assert ("error" in reply) == refused


def test_brackets_in_text_do_not_count_as_depth():
    text = "[" * 1000

    assert ask(request(params=[text])) == {"jsonrpc": "2.0", "result": [text], "id": 1}


def test_a_lone_surrogate_in_an_id_comes_back_unharmed():
    body = b'{"jsonrpc":"2.0","method":"echo","id":"\\ud800"}'

    assert json.loads(answer(body) or b"null")["id"] == "\ud800"


@given(st.binary(max_size=300))
@example(b'{"jsonrpc":"2.0","method":"echo","id":1e999}')
def test_any_bytes_get_a_valid_reply(body):
    reply = answer(body)

    assert reply is not None
    assert_valid_reply(json.loads(reply))


@given(request_like | json_values.filter(lambda value: not isinstance(value, list)))
def test_any_json_gets_a_valid_reply_or_none(message):
    reply = answer(json.dumps(message).encode())

    if reply is not None:
        assert_valid_reply(json.loads(reply))


@given(st.lists(request_like | json_values, min_size=1, max_size=5))
def test_any_batch_gets_valid_replies_or_none(batch):
    reply = answer(json.dumps(batch).encode())

    if reply is not None:
        replies = json.loads(reply)
        assert isinstance(replies, dict) or 0 < len(replies) <= len(batch)
        for one in [replies] if isinstance(replies, dict) else replies:
            assert_valid_reply(one)
