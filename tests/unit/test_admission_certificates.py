"""Certificates, judged by openssl; and what is not accepted when they are read."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homeport.admission import certificates
from homeport.admission.rotating import Authority, Pair
from homeport.model.errors import DecodeFailure

NAME = "homeport-admission.kube-system.svc"
LIFE = timedelta(days=90)


def made(name: str = NAME, life: timedelta = LIFE) -> tuple[Authority, Pair]:
    return certificates.make(name, datetime.now(UTC), life)


def openssl(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *argv], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "flag"),
    [(NAME, "-verify_hostname"), ("198.18.4.1", "-verify_ip"), ("fd00::1", "-verify_ip"), ("a." * 40 + "svc", "")],
)
def test_openssl_accepts_the_pair_for_its_name_by_its_own_authority_alone(tmp_path: Path, name: str, flag: str) -> None:
    (authority, pair), (stranger, _) = made(name), made(name)
    for file, content in (("ca", authority.pem), ("other", stranger.pem), ("cert", pair.pem)):
        (tmp_path / file).write_bytes(content)
    usual = ("verify", "-x509_strict", "-purpose", "sslserver", *((flag, name) if flag else ()))
    told = openssl(*usual, "-CAfile", str(tmp_path / "ca"), str(tmp_path / "cert"))
    assert told.returncode == 0, told.stderr
    assert openssl(*usual, "-CAfile", str(tmp_path / "other"), str(tmp_path / "cert")).returncode != 0
    assert pair.names == {name}
    assert pair.authority == authority.fingerprint


def test_it_is_valid_from_before_it_was_made_until_its_life_is_over(tmp_path: Path) -> None:
    _, pair = made(life=timedelta(seconds=5))
    (tmp_path / "cert").write_bytes(pair.pem)
    assert openssl("x509", "-in", str(tmp_path / "cert"), "-checkend", "1", "-noout").returncode == 0
    assert openssl("x509", "-in", str(tmp_path / "cert"), "-checkend", "60", "-noout").returncode == 1
    assert pair.life.begin < datetime.now(UTC) - timedelta(days=29)
    assert timedelta(seconds=4) < pair.life.end - datetime.now(UTC) <= timedelta(seconds=6)


def test_what_was_made_is_read_back() -> None:
    (first, pair), (second, other) = made(), made()
    bundle = certificates.joined([first, second])
    assert certificates.read_authorities(bundle) == (first, second)
    assert certificates.read_pair(pair.pem, pair.key, [second, first]) == pair
    assert certificates.read_pair(other.pem, other.key, [first, second]) == other
    assert certificates.fingerprints(bundle) == {first.fingerprint, second.fingerprint}


def test_nothing_doubtful_is_accepted() -> None:
    (authority, pair), (stranger, other) = made(), made()
    for bad in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pair.pem, pair.key):
        with pytest.raises(DecodeFailure):
            certificates.read_authorities(bad)
    with pytest.raises(DecodeFailure, match="found another's, expected the certificate's"):
        certificates.read_pair(pair.pem, other.key, [authority])
    with pytest.raises(DecodeFailure, match="signed by none of the authorities"):
        certificates.read_pair(pair.pem, pair.key, [stranger])
    with pytest.raises(DecodeFailure, match="found 2, expected one"):
        certificates.read_pair(pair.pem + other.pem, pair.key, [authority])
    for key in (b"", pair.pem, pair.key[:-40]):
        with pytest.raises(DecodeFailure, match="found none that can be read"):
            certificates.read_pair(pair.pem, key, [authority])
    assert certificates.fingerprints(b"nothing") == frozenset()


def test_an_error_does_not_tell_the_key() -> None:
    (authority, pair), (_, other) = made(), made()
    with pytest.raises(DecodeFailure) as caught:
        certificates.read_pair(pair.pem, other.key, [authority])
    assert "PRIVATE" not in str(caught.value)
