"""The own certificate: made once, kept, noticed when damaged or ending; and TLS with it, through memory alone."""

from __future__ import annotations

import datetime as dt
import ssl
from itertools import product
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent.api import certificate
from hostagent.api.certificate import CertificateError, State
from hostagent.files import FileError
from tests.pure.host_samples import NOW

NAMES: Any = {"hostname": "h1.example", "addresses": ("192.0.2.10", "2001:db8::10")}


@pytest.fixture(scope="module")
def keys():
    """Two good keys: making one takes a while."""
    return certificate.new_key(), certificate.new_key()


@pytest.fixture
def place(tmp_path, keys, monkeypatch):
    """Where both files are to be; the next key that is made is one of the two."""
    rest = list(keys)
    monkeypatch.setattr(certificate, "new_key", lambda: rest.pop(0))
    return tmp_path / "tls/server.pem", tmp_path / "tls/server.key"


@pytest.fixture
def made(place):
    return certificate.ensure(*place, **NAMES, now=NOW)


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("error", [ValueError("an odd number"), UnsupportedAlgorithm("a new one")])
def test_a_certificate_with_a_strange_key_is_damaged(place, monkeypatch, error):
    class Strange:
        def public_key(self):
            raise error

    certificate.ensure(*place, **NAMES)
    monkeypatch.setattr(certificate, "_load_certificate", lambda _pem, _path: Strange())
    found = certificate.look(*place)
    assert found.state is certificate.State.DAMAGED
    assert str(error) in found.trouble


def test_a_first_start_makes_key_and_certificate(place, made):
    cert, key = place

    assert made.made == (key, cert)
    assert (made.warnings, made.set_aside) == ((), ())
    assert key.stat().st_mode & 0o777 == 0o600
    assert cert.stat().st_mode & 0o777 == 0o644
    assert made.certificate.names == (
        "h1.example",
        "localhost",
        "127.0.0.1",
        "::1",
        "192.0.2.10",
        "2001:db8::10",
    )


def test_the_certificate_is_what_clients_accept(place, made):
    loaded = x509.load_pem_x509_certificate(place[0].read_bytes())

    public = loaded.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size >= 2048
    assert isinstance(loaded.signature_hash_algorithm, hashes.SHA256)
    assert made.certificate.not_before == NOW - dt.timedelta(days=1)
    assert made.certificate.not_after == NOW + dt.timedelta(days=3650)
    assert made.certificate.sha256 == loaded.fingerprint(hashes.SHA256()).hex(":").upper()
    assert len(made.certificate.sha256) == 95
    assert len(made.certificate.sha1) == 59


def test_a_second_start_keeps_both(place, made):
    before = [path.read_bytes() for path in place]

    again = certificate.ensure(*place, hostname="other", addresses=(), now=NOW)

    assert again.certificate == made.certificate
    assert (again.made, again.warnings) == ((), ())
    assert [path.read_bytes() for path in place] == before


def test_a_start_that_was_cut_off_between_key_and_certificate_goes_on_with_that_key(place, made):
    cert, key = place
    before = key.read_bytes()
    cert.unlink()
    assert certificate.look(*place).state is State.NO_CERTIFICATE

    again = certificate.ensure(*place, **NAMES, now=NOW)

    assert again.made == (cert,)
    assert again.warnings == ()
    assert key.read_bytes() == before


def test_a_key_that_others_could_read_is_protected_and_told(place, made):
    place[1].chmod(0o644)

    again = certificate.ensure(*place, **NAMES, now=NOW)

    assert place[1].stat().st_mode & 0o777 == 0o600
    assert "0644" in again.warnings[0]


def damage_key(cert, key):
    key.write_bytes(key.read_bytes()[:300])


def damage_certificate(cert, key):
    cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def empty_both(cert, key):
    cert.write_bytes(b"")
    key.write_bytes(b"")


def lose_key(cert, key):
    key.unlink()


def other_key(cert, key):
    key.write_bytes(pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048)))


def weak_key(cert, key):
    key.write_bytes(pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)))  # noqa: S505 - that is the point


def curve_key(cert, key):
    key.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize(
    "damage",
    [damage_key, damage_certificate, empty_both, lose_key, other_key, weak_key, curve_key],
    ids=lambda one: one.__name__,
)
def test_what_is_damaged_is_set_aside_and_made_anew(place, made, damage):
    cert, key = place
    damage(cert, key)
    left = {path.read_bytes() for path in place if path.exists()}
    assert certificate.look(*place).state is State.DAMAGED
    assert {path.read_bytes() for path in place if path.exists()} == left

    again = certificate.ensure(*place, **NAMES, now=NOW)

    assert {path.read_bytes() for path in again.set_aside} == left
    assert again.made == (key, cert)
    assert "a new certificate was made" in again.warnings[0]
    assert again.certificate.sha256 != made.certificate.sha256
    assert certificate.look(*place).certificate == again.certificate
    assert certificate.ensure(*place, **NAMES, now=NOW).warnings == ()


@pytest.mark.parametrize(
    ("later_days", "told"),
    [(0, None), (3619, None), (3621, "ends on 2036-11-18"), (3650, "ended on 2036-11-18")],
)
def test_its_end_is_told_in_time_and_it_is_kept(place, made, later_days, told):
    again = certificate.ensure(*place, **NAMES, now=NOW + dt.timedelta(days=later_days))

    assert again.certificate == made.certificate
    assert [told in text for text in again.warnings] == ([True] if told else [])


def test_renewing_keeps_the_key(place, made):
    key = place[1].read_bytes()

    renewed = certificate.renew(*place, **NAMES, now=NOW + dt.timedelta(days=4000))

    assert place[1].read_bytes() == key
    assert renewed.not_after == NOW + dt.timedelta(days=7650)
    assert certificate.look(*place).certificate == renewed


def test_a_file_that_cannot_be_read_is_not_replaced(place, made):
    place[1].unlink()
    place[1].mkdir()

    with pytest.raises(FileError, match="Is a directory"):
        certificate.ensure(*place, **NAMES, now=NOW)

    assert place[0].exists()


def test_without_room_for_the_directory_the_error_says_so(tmp_path):
    (tmp_path / "tls").write_text("")

    with pytest.raises(FileError) as caught:
        certificate.ensure(tmp_path / "tls/a.pem", tmp_path / "tls/a.key", **NAMES, now=NOW)

    assert "a.pem" in caught.value.found


@given(
    st.binary(max_size=200)
    | st.sampled_from([b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN PRIVATE KEY-----\n"])
)
def test_no_bytes_are_taken_for_a_certificate_or_break_the_reader(data):
    with pytest.raises(CertificateError):
        certificate.inspect(data)
    with pytest.raises(CertificateError):
        certificate.new_certificate(data, "h1", (), NOW)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(max_size=80), st.lists(st.text(max_size=20) | st.ip_addresses().map(str), max_size=4))
def test_a_certificate_can_be_made_whatever_the_host_is_called(keys, hostname, addresses):
    made = certificate.inspect(certificate.new_certificate(keys[0], hostname, addresses, NOW))

    assert "localhost" in made.names
    assert "127.0.0.1" in made.names


# --- TLS ---


def shake_hands(server, client):
    """A handshake through memory; the client's side of it."""
    wires = [ssl.MemoryBIO() for _ in range(4)]
    ends = [
        server.wrap_bio(wires[0], wires[1], server_side=True),
        client.wrap_bio(wires[2], wires[3], server_hostname="h1.example"),
    ]
    left = [True, True]
    for _, place in product(range(10), (1, 0)):
        if left[place]:
            try:
                ends[place].do_handshake()
                left[place] = False
            except ssl.SSLWantReadError:
                pass
        wires[0].write(wires[3].read())
        wires[2].write(wires[1].read())
    assert left == [False, False]
    return ends[1]


def client_of(place, version, ciphers=None):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(place[0])
    client.minimum_version = client.maximum_version = version
    if ciphers:
        client.set_ciphers(ciphers)
    return client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_trusts_the_certificate_speaks_tls(place, made, version):
    spoken = shake_hands(certificate.server_context(*place), client_of(place, version))

    assert spoken.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("suite", ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"])
def test_a_client_that_knows_one_suite_alone_is_served(place, made, suite):
    client = client_of(place, ssl.TLSVersion.TLSv1_2, suite)

    assert shake_hands(certificate.server_context(*place), client).cipher()[0] == suite


def test_suites_without_forward_secrecy_are_refused(place, made):
    client = client_of(place, ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256")

    with pytest.raises(ssl.SSLError, match=r"(?i)handshake|no.shared.cipher"):
        shake_hands(certificate.server_context(*place), client)


def test_nothing_older_than_tls_1_2_is_spoken(place, made):
    context = certificate.server_context(*place)

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3)


def test_files_that_cannot_be_served_are_an_error_with_a_hint(place, made):
    place[1].write_text("x")

    with pytest.raises(CertificateError, match="cannot be served") as caught:
        certificate.server_context(*place)

    assert "openssl" in caught.value.hint


def test_a_key_with_a_password_is_an_error_and_no_question(place, made):
    key = serialization.load_pem_private_key(place[1].read_bytes(), None)
    place[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )

    with pytest.raises(CertificateError, match="password"):
        certificate.server_context(*place)
