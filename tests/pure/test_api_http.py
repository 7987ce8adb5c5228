"""Paths, queries and the routing table: text in, text or a refusal out."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api.http import RawRoute, RefusedError, Request, Response, Route, path_of, query_of
from hostagent.api.routes import Routes, rpc_routes


async def handler(_request: Request) -> Response:
    return Response()


async def other(_request: Request) -> Response:
    return Response()


async def raw(*_: object) -> None:
    return


def refusal(work) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        work()
    return caught.value


# --- paths ---


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/jsonrpc", "/jsonrpc"),
        (b"/a%20b", "/a b"),
        (b"/%C3%A9", "/é"),
        (b"/%252e%252e/x", "/%2e%2e/x"),  # decoded once only
        (b"//RPC2", "//RPC2"),
        (b"/...", "/..."),
        (b"/a..b/.c", "/a..b/.c"),
        (b"http://host/jsonrpc", "/jsonrpc"),
        (b"HTTPS://[fe80::1]:443/x", "/x"),
        (b"http://host", "/"),
    ],
)
def test_a_path_is_decoded_once(target, path):
    assert path_of(target) == path


@pytest.mark.parametrize(
    "target",
    [
        b"/../etc/passwd",
        b"/a/..",
        b"/a/./b",
        b"/.",
        b"/%2e%2e/x",
        b"/.%2E/x",
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%00b",
        b"/a%0d%0ab",
        b"/%7f",
        b"/%ff",
        b"/%c0%af",
        b"/%ed%a0%80",
        b"/%",
        b"/%4",
        b"/%zz",
        b"*",
        b"",
        b"jsonrpc",
        b"host:443",
        b"ftp://host/",
        b"http:///x",
        b"http://host/../x",
    ],
)
def test_a_path_with_tricks_is_a_bad_request(target):
    assert refusal(lambda: path_of(target)).status == 400


SEGMENT = st.text(st.characters(exclude_characters="/", exclude_categories=["Cc", "Cs"]), max_size=10)


@given(st.lists(SEGMENT.filter(lambda segment: segment not in (".", "..")), max_size=4))
def test_any_plain_path_comes_back_as_it_was(segments):
    path = f"/{'/'.join(segments)}"

    assert path_of(quote(path).encode()) == path


@given(st.binary(max_size=40) | st.text("/.%2efF0\\", max_size=20).map(str.encode))
def test_a_path_that_is_accepted_stays_inside_and_is_clean(target):
    try:
        path = path_of(b"/" + target)
    except RefusedError:
        return
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))
    assert not any(ord(character) < 32 for character in path)
    assert path.count("/") == target.count(b"/") + 1


# --- queries ---


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", {}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=1&a=2", {"a": "1"}),
        (b"dry_run&x=", {"dry_run": "", "x": ""}),
        (b"&&a=1&", {"a": "1"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"session_id=OpaqueRef%3Ax", {"session_id": "OpaqueRef:x"}),
        (b"a=1+2%2B3", {"a": "1 2+3"}),
        (b"a=50%", {"a": "50%"}),
        (b"=x", {"": "x"}),
    ],
)
def test_a_query_is_names_and_values(query, found):
    assert query_of(query) == found


@pytest.mark.parametrize("query", [b"a=%ff", b"%c0%80=1", b"a=%00", b"a=\xff"])
def test_a_query_that_is_no_text_is_a_bad_request(query):
    assert refusal(lambda: query_of(query)).status == 400


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_any_query_comes_back_as_it_was(values):
    assert query_of(urlencode(values, quote_via=quote_plus).encode()) == values


@given(st.binary(max_size=60))
def test_any_bytes_as_a_query_are_texts_or_refused(query):
    try:
        found = query_of(query)
    except RefusedError:
        return
    assert not any("\0" in text for pair in found.items() for text in pair)


# --- routes ---

TABLE = Routes(
    [
        *rpc_routes(handler, other),
        RawRoute("POST", "/cli", raw),
        Route("GET", "/services", handler),
        Route("GET", "/services/xenops", other),
        Route("PUT", "/services/xenops", other),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "prefix"),
    [
        ("POST", "/", "/"),
        ("POST", "/RPC2", "/"),
        ("POST", "//RPC2", "/"),
        ("POST", "/xmlrpc", "/"),
        ("POST", "/services/xenops", "/"),
        ("POST", "/jsonrpc", "/jsonrpc"),
        ("POST", "/jsonrpc/", "/jsonrpc"),
        ("POST", "/json", "/json"),
        ("POST", "/jsonrpc2", "/"),
        ("POST", "/cli", "/cli"),
        ("POST", "/client", "/"),
        ("GET", "/", "/"),
        ("GET", "/services", "/services"),
        ("GET", "/services/SM", "/services"),
        ("GET", "/services/xenops", "/services/xenops"),
        ("GET", "/services/xenops/x", "/services/xenops"),
        ("GET", "/services/xenops2", "/services"),
        ("OPTIONS", "/", "/"),
        ("OPTIONS", "/jsonrpc", "/"),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(method, path, prefix):
    assert TABLE.find(method, path).prefix == prefix


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/RPC2"), ("GET", "/nothing"), ("PUT", "/x"), ("DELETE", "/x"), ("post", "/x")],
)
def test_what_nobody_serves_is_not_found(method, path):
    assert refusal(lambda: TABLE.find(method, path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/jsonrpc", "POST"),
        ("DELETE", "/services/xenops", "GET, PUT"),
        ("PUT", "/services", "GET"),
        ("HEAD", "/", "GET, OPTIONS, POST"),
    ],
)
def test_another_method_is_not_allowed_and_those_served_are_named(method, path, allow):
    refused = refusal(lambda: TABLE.find(method, path))

    assert (refused.status, refused.headers["allow"]) == (405, allow)


def test_two_routes_for_the_same_are_a_mistake():
    with pytest.raises(ValueError, match="/a"):
        Routes([Route("GET", "/a", handler), Route("GET", "/a/", other)])


@given(
    st.lists(st.text("ab/", max_size=6).map("/{}".format), max_size=6, unique_by=lambda p: p.rstrip("/")),
    st.text("ab/", max_size=8).map("/{}".format),
)
def test_the_table_finds_what_a_walk_upwards_finds(prefixes, path):
    table = Routes([Route("GET", prefix, handler) for prefix in prefixes])
    known = {prefix.rstrip("/"): prefix for prefix in prefixes}
    at = path
    while at not in known and at:
        at = at.rpartition("/")[0]

    if at in known:
        assert table.find("GET", path).prefix == known[at]
    else:
        assert refusal(lambda: table.find("GET", path)).status == 404
