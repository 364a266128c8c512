"""What shows the API server who we are, and us who it is: a TLS context and an Authorization header.

Reads files. They are looked at again at most once a second, since the kubelet replaces a pod's token, and itself its
own certificate, long before the old one ends. What cannot be read then leaves the former credentials in use.
"""

from __future__ import annotations

import os
import ssl
import threading
import time

import msgspec

from homeport.kube import errors
from homeport.kube.configs import ApiConfig, File
from homeport.model.errors import IOFailure

_LOOK_SECONDS = 1.0

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Material(msgspec.Struct, frozen=True):
    """What a connection is made with. One of another `generation` must not be used for new requests.

    `authorization` belongs to requests rather than to connections, and changes without a new generation.
    """

    context: ssl.SSLContext | None  # None for plain HTTP
    authorization: str | None
    generation: int

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Material(generation {self.generation})"


class Credentials:
    """The credentials of an `ApiConfig` as they are now. Safe to share by threads."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._stamp: _Stamp = ()
        self._looked = 0.0
        self._material: Material | None = None
        self._trust: tuple[bytes | None, bytes | None, bytes | None] = (None, None, None)

    def current(self) -> Material:
        """Raises `IOFailure` when they could never be read."""
        material = self._material
        if material is not None and time.monotonic() - self._looked < _LOOK_SECONDS:
            return material
        with self._lock:
            return self._look()

    def renewed(self, used: Material) -> bool:
        """Whether there are others than `used` by now: asked when the API server did not accept those."""
        with self._lock:
            now = self._look()
        return (now.authorization, now.generation) != (used.authorization, used.generation)

    def _look(self) -> Material:
        stamp = self._stamp_now()
        if self._material is None or stamp != self._stamp:
            try:
                self._material = self._read()
                self._stamp = stamp
            except IOFailure:
                if self._material is None:
                    raise
        self._looked = time.monotonic()
        return self._material

    def _read(self) -> Material:
        config, former = self._config, self._material
        trust = (_contents(config.ca), _contents(config.client_certificate), _contents(config.client_key))
        authorization = _authorization(config.token)
        if former is not None and trust == self._trust:
            return Material(former.context, authorization, former.generation)
        context = _context(config, *trust) if config.tls else None
        self._trust = trust
        return Material(context, authorization, former.generation + 1 if former is not None else 0)

    def _stamp_now(self) -> _Stamp:
        config = self._config
        paths = [
            part.path
            for part in (config.ca, config.client_certificate, config.client_key, config.token)
            if isinstance(part, File)
        ]
        return tuple(_stamp(path) for path in paths)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _contents(part: bytes | File | None) -> bytes | None:
    if not isinstance(part, File):
        return part
    try:
        with open(part.path, "rb") as file:
            return file.read()
    except OSError as e:
        raise IOFailure(f"read {part.path}: {(e.strerror or str(e)).lower()}") from e


def _authorization(token: str | File | None) -> str | None:
    if token is None:
        return None
    text = token if isinstance(token, str) else (_contents(token) or b"").decode("ascii", errors="replace")
    text = text.strip()
    place = f"token file {token.path}" if isinstance(token, File) else "token"
    if not text:
        raise IOFailure(f"{place}: found nothing, expected a bearer token")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise IOFailure(f"{place}: found characters that no bearer token has")
    return f"Bearer {text}"


def _context(config: ApiConfig, ca: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    # Not create_default_context: from Python 3.13 on it demands extensions that authorities of clusters often lack.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    what = "certificate authority"
    try:
        if not config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=ca.decode("ascii"))
        if certificate is not None and key is not None:
            what = "client certificate and key"
            _load_pair(context, certificate, key)
    except (ssl.SSLError, UnicodeDecodeError, OSError) as e:
        raise IOFailure(f"{what} of {config.source}: cannot be used: {_reason(e)}") from e
    return context


def _reason(error: Exception) -> str:
    return errors.reason(error) if isinstance(error, OSError) else "not PEM"


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL takes these from files only: one in memory keeps the key off every disk."""
    fd = os.memfd_create("client-certificate")
    try:
        os.write(fd, certificate + b"\n" + key)
        # Without the callback OpenSSL would ask for an encrypted key's password on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=lambda: "")
    finally:
        os.close(fd)
