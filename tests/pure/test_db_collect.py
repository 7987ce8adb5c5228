"""The collection of what leads nowhere, and of what goes with its owner."""

from __future__ import annotations

from hostagent.db import collect
from hostagent.db.datatype import NULL_REF
from tests.pure.db_records import make_host, make_pif


def test_collect_takes_several_lost_references_out_of_one_field(db):
    with db.write() as w:
        vifs = [w.create("VIF", {}) for _ in range(2)]
        network = w.create("network", {"assigned_ips": dict.fromkeys(vifs, "169.254.0.2")})
        blobs = {name: w.create("blob", {}) for name in ("a", "b", "kept")}
        pool = w.create("pool", {"blobs": blobs})
    with db.write() as w:
        for ref in vifs:
            w.destroy("VIF", ref)
        for name in ("a", "b"):
            w.destroy("blob", blobs[name])
    with db.write() as w:
        collect.collect(w, db.model)
    with db.read() as view:
        assert view.get("network", network, "assigned_ips") == {}
        assert view.get("pool", pool, "blobs") == {"kept": blobs["kept"]}


def test_a_disk_goes_from_its_vm_and_a_certificate_with_its_host(db):
    host = make_host(db)
    with db.write() as w:
        vm = w.create("VM", {})
        vdi = w.create("VDI", {"SR": w.create("SR", {})})
        disk = w.create("VBD", {"VM": vm, "VDI": vdi, "type": "Disk"})
        empty = w.create("VBD", {"VM": vm, "type": "CD", "empty": True})
        own = w.create("Certificate", {"host": host, "type": "host"})
        root = w.create("Certificate", {"type": "ca", "name": "root"})
    with db.write() as w:
        w.destroy("VDI", vdi)
        w.destroy("host", host)
    with db.write() as w:
        collect.collect(w, db.model)
    with db.read() as view:
        assert view.refs("VBD") == [empty]
        assert view.refs("Certificate") == [root]
        assert not view.exists("Certificate", own)
        assert not view.exists("VBD", disk)


def test_collect_mends_what_leads_nowhere(db):
    host = make_host(db)
    with db.write() as w:
        network = w.create("network", {})
        pif = make_pif(w, host, network)
        metrics = w.get("PIF", pif, "metrics")
        sr = w.create("SR", {"name_label": "s"})
        vdi = w.create("VDI", {"SR": sr})
        vm = w.create("VM", {"metrics": w.create("VM_metrics", {})})
        vbd = w.create("VBD", {"VM": vm, "VDI": vdi, "type": "CD"})
        pool = w.create("pool", {"default_SR": sr, "master": host})
    with db.write() as w:
        w.destroy("network", network)
        w.destroy("SR", sr)
    with db.write() as w:
        mended = collect.collect(w, db.model)
    assert {(found.cls, found.ref) for found in mended} >= {
        ("PIF", pif),
        ("VDI", vdi),
        ("pool", pool),
        ("VBD", vbd),
    }
    with db.read() as view:
        assert collect.check(view, db.model) == []
        assert not view.exists("PIF_metrics", metrics)
        assert (view.get("VBD", vbd, "VDI"), view.get("VBD", vbd, "empty")) == (NULL_REF, True)
        assert view.get("pool", pool, "default_SR") == NULL_REF
        assert view.exists("VM", vm)
        assert view.exists("host", host)
