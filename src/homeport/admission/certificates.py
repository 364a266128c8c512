"""Certificates of the webhook: made, and read with every doubt. No I/O but the machine's randomness.

RFC 5280. ECDSA on P-256, which every API server takes. A certificate that is read counts only if its authority's own
signature on it, its names and its key are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from homeport.admission.rotating import BACKDATED, Authority, Life, Pair
from homeport.model.errors import DecodeFailure

_HASH = hashes.SHA256()
_NO_USAGE = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


def make(name: str, now: datetime, life: timedelta) -> tuple[Authority, Pair]:
    """A new authority, and a pair for `name` that it signed. The authority's key is forgotten."""
    # Whole seconds are all that a certificate can tell: upwards, so that the shortest life is one.
    end = (now + life + timedelta(seconds=1)).replace(microsecond=0)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # A name of its own, so that nobody takes one authority for the next.
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"homeport admission {x509.random_serial_number():x}")])
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), now - BACKDATED, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**_NO_USAGE, digital_signature=False, key_cert_sign=True, crl_sign=False), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, _HASH)
    )
    signed = (
        _builder(_subject(name), issuer, key.public_key(), now - BACKDATED, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**_NO_USAGE, digital_signature=True, key_cert_sign=False, crl_sign=False), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, _HASH)
    )
    trusted = _authority(authority)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return trusted, _pair(signed, secret, trusted.fingerprint)


def read_authorities(pem: bytes) -> tuple[Authority, ...]:
    """All in `pem`, in its order. Raises `DecodeFailure` unless each is an authority, and signed by itself."""
    found = _load(pem, "authorities")
    for certificate in found:
        if not _is_authority(certificate) or not _is_signed_by(certificate, certificate):
            raise DecodeFailure(f"read authorities: found {certificate.subject.rfc4514_string()!r}, expected a root")
    return tuple(_authority(certificate) for certificate in found)


def read_pair(pem: bytes, key: bytes, authorities: Sequence[Authority]) -> Pair:
    """Raises `DecodeFailure` unless `key` is the certificate's, and one of `authorities` has signed it."""
    found = _load(pem, "certificate")
    if len(found) != 1:
        raise DecodeFailure(f"read certificate: found {len(found)}, expected one")
    (certificate,) = found
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise DecodeFailure("read the certificate's key: found none that can be read, expected one in PEM") from e
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != certificate.public_key():
        raise DecodeFailure("read the certificate's key: found another's, expected the certificate's")
    for authority in authorities:
        if _is_signed_by(certificate, _load(authority.pem, "authority")[0]):
            return _pair(certificate, key, authority.fingerprint)
    raise DecodeFailure("read certificate: signed by none of the authorities, expected one of them")


def fingerprints(pem: bytes) -> frozenset[str]:
    """Of every certificate in `pem`; of none where it cannot be read."""
    try:
        return frozenset(_fingerprint(certificate) for certificate in _load(pem, "certificates"))
    except DecodeFailure:
        return frozenset()


def joined(authorities: Iterable[Authority]) -> bytes:
    """As a registration carries them."""
    return b"".join(authority.pem for authority in authorities)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _subject(name: str) -> x509.Name:
    """The name counts in `subjectAltName` alone; a common name has room for 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as e:
        raise DecodeFailure(f"read {what}: found {len(pem)} bytes, expected certificates in PEM") from e


def _authority(certificate: x509.Certificate) -> Authority:
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Authority(pem=pem, fingerprint=_fingerprint(certificate), life=_life(certificate))


def _pair(certificate: x509.Certificate, key: bytes, authority: str) -> Pair:
    return Pair(
        pem=certificate.public_bytes(serialization.Encoding.PEM),
        key=key,
        names=_names(certificate),
        authority=authority,
        life=_life(certificate),
    )


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    addresses = (str(address) for address in extension.get_values_for_type(x509.IPAddress))
    return frozenset((*extension.get_values_for_type(x509.DNSName), *addresses))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _life(certificate: x509.Certificate) -> Life:
    return Life(
        begin=certificate.not_valid_before_utc.astimezone(UTC), end=certificate.not_valid_after_utc.astimezone(UTC)
    )


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(_HASH).hex()
