"""Search domains of `other_config:domain`, and a resolver that says something else than it was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.net import bring, cache, keys
from hostagent.net.devices import Dns
from hostagent.net.resolv_conf import is_other, render
from tests.pure.net_records import STATIC, Host
from tests.pure.startup_network import FakeHost


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize(
    "text", ["a.example,b.example", "a.example b.example", " a.example,\tb.example, a.example "]
)
def test_domains_are_parted_by_commas_and_blanks(text):
    read = keys.of_pif({"domain": text})

    assert (read.domain, read.problems) == (("a.example", "b.example"), ())
    keys.check_pif({"domain": text})


@pytest.mark.parametrize(
    "bad", ["evil\nnameserver", "evil\roptions", "bücher.example", "~.", "a" * 254, "a;b"]
)
def test_what_is_no_domain_is_refused_and_left_out(bad):
    text = f"a.example {bad},b.example"

    assert keys.of_pif({"domain": text}).domain == ("a.example", "b.example")
    with pytest.raises(InvalidValueError) as caught:
        keys.check_pif({"domain": text})
    assert caught.value.params == ("other_config:domain", text)
    assert repr(bad) in caught.value.found


@given(st.text(max_size=40) | st.text(alphabet="ab.,\t\n \x1c\x85#;-_~", max_size=40))
def test_what_is_read_is_one_line_and_reads_back(text):
    dns = Dns(("192.0.2.1",), keys.of_pif({"domain": text}).domain)

    written = render(dns)

    assert not is_other(written, dns)
    assert sum(not line.startswith("#") for line in written.splitlines()) == 1 + bool(dns.search)


class Renaming(FakeHost):
    """Its resolver keeps another domain than it is given."""

    def resolve(self, text, bridge):
        super().resolve(text.replace("example.org", "example.net"), bridge)


@pytest.mark.parametrize("boot", [True, False])
def test_a_resolver_that_says_something_else_costs_no_network(tmp_path, boot):
    made = Host()
    made.nic(
        "eth0", mac="52:54:00:00:00:02", **STATIC, management=True, other_config={"domain": "example.org"}
    )
    host = Renaming()
    host.kernel.nic("eth0", 2, up=True)
    records = made.records("xenbr0")

    result = bring.bring(
        bring.Request("up", "eth0", management=True, boot=boot),
        cache.Found(cache.Cached(records, 1)),
        host.open(tmp_path),
    )

    assert (result["outcome"], result["error"]) == ("degraded", None)
    assert any(
        "search example.net; nameserver 10.1.0.1, not search example.org" in one for one in result["told"]
    )
    assert "xenbr0" in host.look().by_name()
