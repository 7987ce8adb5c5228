"""The database against a simple model of it: random histories of made, changed and destroyed objects."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from hostagent.db.database import open_database
from hostagent.db.errors import HandleInvalidError


class Histories(RuleBasedStateMachine):
    """Networks, hosts and PIFs made, changed and destroyed at random, in transactions that may be undone."""

    hosts = Bundle("hosts")
    networks = Bundle("networks")
    pifs = Bundle("pifs")

    @initialize()
    def start(self):
        import tempfile
        from pathlib import Path

        self.directory = tempfile.TemporaryDirectory()
        self.files = Path(self.directory.name) / "state.db", Path(self.directory.name) / "volatile.db"
        self.db = open_database(*self.files)
        self.wanted: dict[str, dict[str, object]] = {}
        self.seen: dict[str, str] = {}
        self.since = self.db.generation

    def teardown(self):
        self.db.close()
        self.directory.cleanup()

    @rule(target=hosts)
    def make_host(self):
        with self.db.write() as w:
            ref = w.create("host", {})
        self.wanted[ref] = {"cls": "host"}
        return ref

    @rule(target=networks, name=st.text("ab", max_size=2))
    def make_network(self, name):
        with self.db.write() as w:
            ref = w.create("network", {"name_label": name})
        self.wanted[ref] = {"cls": "network", "name_label": name}
        return ref

    @rule(target=pifs, host=hosts, network=networks, vlan=st.integers(-1, 4094))
    def make_pif(self, host, network, vlan):
        with self.db.write() as w:
            ref = w.create("PIF", {"host": host, "network": network, "VLAN": str(vlan)})
        self.wanted[ref] = {"cls": "PIF", "host": host, "network": network, "VLAN": vlan}
        return ref

    @rule(pif=pifs, network=networks)
    def move(self, pif, network):
        with self.db.write() as w:
            w.set("PIF", pif, "network", network)
        self.wanted[pif]["network"] = network

    @rule(network=networks, name=st.text("ab", max_size=2))
    def rename(self, network, name):
        with self.db.write() as w:
            w.set("network", network, "name_label", name)
        self.wanted[network]["name_label"] = name

    @rule(pif=consumes(pifs))
    def destroy(self, pif):
        with self.db.write() as w:
            w.destroy("PIF", pif)
        del self.wanted[pif]

    @rule(pif=pifs, network=networks)
    def undo(self, pif, network):
        with pytest.raises(HandleInvalidError), self.db.write() as w:  # noqa: PT012 - all of it is undone
            w.set("PIF", pif, "network", network)
            w.destroy("PIF", pif)
            w.destroy("PIF", pif)

    @rule()
    def restart(self):
        self.db.close()
        self.db = open_database(*self.files)

    @precondition(lambda self: hasattr(self, "db"))
    @rule()
    def follow(self):
        """A client that applies events has what the database has."""
        with self.db.read() as view:
            for change in view.changes(self.since, ["host", "network", "PIF"]):
                assert change.mtime > self.since
                if change.record is None:
                    del self.seen[change.ref]
                else:
                    assert (change.ref in self.seen) == (change.ctime <= self.since)
                    self.seen[change.ref] = change.record
            self.since = view.generation
            texts = {ref: text for cls in ("host", "network", "PIF") for ref, text in view.records_text(cls)}
        assert self.seen == texts

    @invariant()
    def agrees(self):
        with self.db.read() as view:
            for cls in ("host", "network", "PIF"):
                refs = {ref for ref, wanted in self.wanted.items() if wanted["cls"] == cls}
                assert set(view.refs(cls)) == refs
                assert view.counts()[cls] == len(refs)
            for ref, wanted in self.wanted.items():
                record = view.record(str(wanted["cls"]), ref)
                assert {name: record[name] for name in wanted if name != "cls"} == {
                    name: value for name, value in wanted.items() if name != "cls"
                }
                if wanted["cls"] != "PIF":
                    pifs = sorted(
                        pif for pif, row in self.wanted.items() if row.get(str(wanted["cls"])) == ref
                    )
                    assert record["PIFs"] == pifs


Histories.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestHistories = Histories.TestCase
