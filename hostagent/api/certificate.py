"""The host's own certificate: made at first start, kept, noticed when it is damaged or about to end; and the TLS that
is spoken with it.

RSA, because clients in the field offer ECDHE-RSA suites alone (xenapi.md 3.5). The key is written before the
certificate: a start that is cut off between the two makes the certificate for the key that is there.
"""

from __future__ import annotations

import datetime as dt
import enum
import errno
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.db.local import corrupt_name
from hostagent.errors import OperatorError
from hostagent.files import HINTS, FileError, read_bounded, write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

KEY_BITS = 2048
KEY_BITS_LEAST = 2048
VALID = dt.timedelta(days=3650)
AHEAD = dt.timedelta(days=1)
"""How long before now a certificate begins: the clocks of host and client may differ."""
SOON = dt.timedelta(days=30)
LIMIT_BYTES = 1 << 20
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
DIRECTORY_MODE = 0o755
NAME_LIMIT = 64
"""Characters of a common name (RFC 5280, ub-common-name)."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; the suites of TLS 1.3 are all as good."""


class CertificateError(OperatorError):
    """Key and certificate cannot be used. XenAPI has codes for uploaded ones only; this is about our own."""


class State(enum.Enum):
    """What was found in place of key and certificate."""

    GOOD = "good"
    NO_PAIR = "neither key nor certificate"
    NO_CERTIFICATE = "a key without certificate"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as the record of class Certificate has it. Fingerprints are upper-case hexadecimal bytes with
    colons; `names` are the DNS names and addresses it is for.
    """

    not_before: dt.datetime
    not_after: dt.datetime
    sha256: str
    sha1: str
    names: tuple[str, ...]

    def expiry_warning(self, now: dt.datetime) -> str | None:
        """What to tell an operator about its end, None while that is far away."""
        end = f"{self.not_after:%Y-%m-%d %H:%M} UTC"
        if now >= self.not_after:
            return f"the certificate of this host ended on {end}: clients that look at it refuse this host"
        return f"the certificate of this host ends on {end}" if now >= self.not_after - SOON else None


@dataclass(frozen=True, slots=True)
class Found:
    """What is there. `certificate` only when it is good; `trouble` says what is wrong with a damaged pair."""

    state: State
    certificate: Certificate | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Ensured:
    """The certificate to serve. `made` of what had to be made, `set_aside` the damaged files' names now."""

    certificate: Certificate
    made: tuple[Path, ...] = ()
    set_aside: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


def look(certificate: Path, key: Path) -> Found:
    """What is there, without changing anything. Raises FileError: a file is there but cannot be read."""
    texts = _read(certificate), _read(key)
    if texts == (None, None):
        return Found(State.NO_PAIR)
    try:
        if texts[1] is None:
            raise CertificateError(f"{key} is gone", hint="restore it from a backup")
        private = _load_key(texts[1], key)
        if texts[0] is None:
            return Found(State.NO_CERTIFICATE)
        return Found(State.GOOD, _checked(texts[0], private, certificate, key))
    except CertificateError as error:
        return Found(State.DAMAGED, trouble=error.found)


def ensure(
    certificate: Path, key: Path, *, hostname: str, addresses: Sequence[str], now: dt.datetime | None = None
) -> Ensured:
    """Key and certificate that can be served, made where there are none. What is damaged is renamed beside itself.

    A certificate that has ended is told and kept: clients may have its fingerprint, and a new one would lock them out.
    Raises FileError, BusyError.
    """
    moment = now or dt.datetime.now(dt.UTC)
    found = look(certificate, key)
    if found.certificate is not None:
        mended = _mend_mode(key)
        warning = found.certificate.expiry_warning(moment)
        return Ensured(found.certificate, warnings=tuple(text for text in (mended, warning) if text))
    warnings: tuple[str, ...] = ()
    aside: tuple[Path, ...] = ()
    if found.state is State.DAMAGED:
        aside = tuple(_set_aside(path) for path in (certificate, key) if path.exists())
        kept = ", ".join(str(path) for path in aside)
        text = (
            f"{found.trouble}: a new certificate was made, and clients that knew the old one refuse this host"
        )
        warnings = (f"{text}; the old files are kept as {kept}",)
    try:
        for directory in {certificate.parent, key.parent}:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise _file_error("made", certificate.parent, error) from error
    made: tuple[Path, ...] = (certificate,)
    if found.state is not State.NO_CERTIFICATE:
        write_atomic(key, new_key(), mode=KEY_MODE)
        made = (key, certificate)
    return Ensured(
        renew(certificate, key, hostname=hostname, addresses=addresses, now=moment), made, aside, warnings
    )


def renew(
    certificate: Path, key: Path, *, hostname: str, addresses: Sequence[str], now: dt.datetime | None = None
) -> Certificate:
    """A new certificate for the key that is there, from now on. Raises CertificateError, FileError."""
    moment = now or dt.datetime.now(dt.UTC)
    text = new_certificate(read_bounded(key, limit_bytes=LIMIT_BYTES), hostname, addresses, moment)
    write_atomic(certificate, text, mode=CERTIFICATE_MODE)
    return inspect(text)


def new_key() -> bytes:
    """A private key, PEM. Takes a second or two in an emulated dom0."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_certificate(key: bytes, hostname: str, addresses: Sequence[str], now: dt.datetime) -> bytes:
    """A self-signed certificate for that key, PEM, for the host's name and addresses. Raises CertificateError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    private = _load_key(key, None)
    names = alternative_names(hostname, addresses)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:NAME_LIMIT])])
    general = [x509.DNSName(name) if _address(name) is None else _ip_name(name) for name in names]
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - AHEAD)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    return built.public_bytes(Encoding.PEM)


def alternative_names(hostname: str, addresses: Sequence[str]) -> list[str]:
    """What a certificate is for: the host's name, `localhost`, its addresses; what can be no name is left out."""
    fits = bool(hostname) and hostname.isascii() and hostname.isprintable() and " " not in hostname
    names = [*([hostname] if fits else []), "localhost"]
    numbers = [str(found) for text in ("127.0.0.1", "::1", *addresses) if (found := _address(text))]
    return list(dict.fromkeys((*names, *numbers)))


def inspect(pem: bytes) -> Certificate:
    """The facts of a certificate, the first one if there is a chain. Raises CertificateError."""
    return _facts(_load_certificate(pem, None))


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 for a server, with suites that keep earlier talk secret if the key leaks.

    Raises CertificateError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, CertificateError) as error:
        raise CertificateError(
            f"{certificate} and {key} cannot be served: {error}",
            hint="`openssl x509 -text -in` and `openssl pkey -check -in` say more; "
            "move both away and restart hostagent, and new ones are made",
        ) from error
    return context


def _no_password() -> str:
    """A key with a password would make OpenSSL ask on the terminal."""
    raise CertificateError("the key has a password", hint="take it out: openssl pkey -in KEY -out KEY")


def _read(path: Path) -> bytes | None:
    try:
        return read_bounded(path, limit_bytes=LIMIT_BYTES)
    except FileError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _load_key(pem: bytes, path: Path | None) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    what = path or "the key"
    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{what} is no private key in PEM form", hint="restore it") from error
    if not isinstance(found, RSAPrivateKey):
        raise CertificateError(f"{what} is not an RSA key", hint="clients need an RSA certificate")
    if found.key_size < KEY_BITS_LEAST:
        raise CertificateError(
            f"{what} has {found.key_size} bits, which is too weak", hint=f"use {KEY_BITS} or more"
        )
    return found


def _load_certificate(pem: bytes, path: Path | None) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(
            f"{path or 'the text'} is no certificate in PEM form", hint="restore it"
        ) from error


def _checked(pem: bytes, private: RSAPrivateKey, certificate: Path, key: Path) -> Certificate:
    loaded = _load_certificate(pem, certificate)
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        fits = loaded.public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{certificate} has a key that cannot be understood: {error}",
            hint="clients need an RSA certificate",
        ) from error
    if not fits:
        raise CertificateError(f"{certificate} is not for the key in {key}", hint="restore both together")
    return _facts(loaded)


def _facts(loaded: x509.Certificate) -> Certificate:
    from cryptography.hazmat.primitives import hashes

    try:
        return Certificate(
            not_before=loaded.not_valid_before_utc,
            not_after=loaded.not_valid_after_utc,
            sha256=loaded.fingerprint(hashes.SHA256()).hex(":").upper(),
            sha1=loaded.fingerprint(hashes.SHA1()).hex(":").upper(),  # noqa: S303 - a name, not a protection
            names=_names(loaded),
        )
    except ValueError as error:
        raise CertificateError(f"the certificate cannot be understood: {error}", hint="replace it") from error


def _names(loaded: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(one) for one in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _ip_name(text: str) -> x509.IPAddress:
    from cryptography import x509

    return x509.IPAddress(ipaddress.ip_address(text))


def _mend_mode(key: Path) -> str | None:
    """The key is readable by its owner alone; what to tell when it was not."""
    try:
        mode = key.stat().st_mode & 0o7777
        if not mode & 0o077:
            return None
        key.chmod(KEY_MODE)
    except OSError as error:
        raise _file_error("protected", key, error) from error
    return f"{key} could be read by others (mode {mode:04o}); it is {KEY_MODE:04o} now: if others log in here, renew it"


def _set_aside(path: Path) -> Path:
    name = corrupt_name(path)
    try:
        path.rename(name)
    except OSError as error:
        raise _file_error("set aside", path, error) from error
    return name


def _file_error(done: str, path: Path, error: OSError) -> FileError:
    number = error.errno or 0
    return FileError(
        f"{path} could not be {done}: {error.strerror}",
        hint=HINTS.get(number, "try it by hand"),
        number=number,
    )
