"""Who may talk to the API server: certificates, tokens, kubeconfig files. I/O: openssl, files.

A token is known to the API server from its start; anybody else gets a client certificate when asked for.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster.progress import Unavailable

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
_DAYS = "30"


@dataclass(frozen=True, kw_only=True)
class Access:
    """One user's way to an API server: with a token, or with a certificate and its key."""

    user: str
    server: str
    ca: Path
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    def kubeconfig(self) -> str:
        """A kubeconfig file's text, complete in itself (JSON, which is YAML too)."""
        name = "testcluster"
        user: dict[str, str] = {"token": self.token} if self.token else {}
        if self.certificate and self.key:
            user = {"client-certificate-data": _data(self.certificate), "client-key-data": _data(self.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": self.server, "certificate-authority-data": _data(self.ca)}}
            ],
            "users": [{"name": self.user, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": self.user}}],
            "current-context": name,
        }
        return json.dumps(config, indent=2)


class Authority:
    """The certificates and tokens of one control plane, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokens: dict[str, str] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca, self._ca_key = folder / "ca.crt", folder / "ca.key"
        self.serving, self.serving_key = folder / "serving.crt", folder / "serving.key"
        self.token_file = folder / "tokens.csv"

    def found(self, addresses: Sequence[str]) -> None:
        """Makes the authority, and the certificate of servers that listen on `addresses`."""
        _openssl(
            *("req", "-x509", *_KEY, "-keyout", str(self._ca_key), "-out", str(self.ca), "-days", _DAYS),
            *("-subj", "/CN=testcluster", "-addext", "keyUsage=critical,keyCertSign"),
        )
        names = ["DNS:localhost", "DNS:kubernetes.default.svc", *(f"IP:{a}" for a in addresses)]
        self._issue(self.serving, self.serving_key, "/CN=testcluster-server", f"subjectAltName={','.join(names)}")

    def give_tokens(self, users: Mapping[str, Sequence[str]]) -> None:
        """A token for each user, whose groups are given, in the API server's token file."""
        self._tokens = {user: secrets.token_hex(16) for user in users}
        lines = [f'{token},{user},{user},"{",".join(users[user])}"' for user, token in self._tokens.items()]
        self.token_file.write_text("\n".join(lines) + "\n")
        self.token_file.chmod(0o600)

    def has_token(self, user: str) -> bool:
        """Whether it was given one at the start."""
        return user in self._tokens

    def access(self, user: str, server: str, groups: Sequence[str] = ()) -> Access:
        """With the user's token; with a certificate, made now, for one who has none or asks for other groups."""
        if user in self._tokens and not groups:
            return Access(user=user, server=server, ca=self.ca, token=self._tokens[user])
        stem = re.sub(r"[^\w.-]", "_", "+".join([user, *groups]))
        certificate, key = self._folder / f"user-{stem}.crt", self._folder / f"user-{stem}.key"
        if not certificate.exists():
            subject = "".join([f"/CN={user}", *(f"/O={group}" for group in groups)])
            self._issue(certificate, key, subject, "extendedKeyUsage=clientAuth")
        return Access(user=user, server=server, ca=self.ca, certificate=certificate, key=key)

    def _issue(self, certificate: Path, key: Path, subject: str, extension: str) -> None:
        _openssl(
            *("req", "-x509", "-CA", str(self.ca), "-CAkey", str(self._ca_key), *_KEY, "-keyout", str(key)),
            *("-out", str(certificate), "-days", _DAYS, "-subj", subject),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", extension),
        )


def _openssl(*argv: str) -> None:
    try:
        done = subprocess.run(["openssl", *argv], capture_output=True, text=True, check=False)
    except FileNotFoundError as e:
        raise Unavailable("openssl is not on this machine; it comes with Debian's package openssl") from e
    if done.returncode != 0:
        raise Unavailable(f"openssl {' '.join(argv)}: exit status {done.returncode}\n{done.stderr}")


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
