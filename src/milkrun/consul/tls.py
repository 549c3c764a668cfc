"""How the client speaks TLS with a registry: whom it trusts, what it shows, and by which name it asks.

The variables are those of Consul's own tools, with their meaning there.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from milkrun.errors import InputRefused

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files in PEM, and by which name the registry has to answer (empty: by that of its address).

    `ca_file` wins over `ca_folder`; without both, those are trusted that the system trusts.
    """

    ca_file: str = ""
    ca_folder: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    verify: bool = True

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """What Consul's variables say."""
        name = variables.get("CONSUL_TLS_SERVER_NAME", "")
        host, colon, port = name.rpartition(":")
        return cls(
            ca_file=variables.get("CONSUL_CACERT", ""),
            ca_folder=variables.get("CONSUL_CAPATH", ""),
            cert=variables.get("CONSUL_CLIENT_CERT", ""),
            key=variables.get("CONSUL_CLIENT_KEY", ""),
            server_name=host if colon and port.isdigit() and ":" not in host else name,
            verify=switch("CONSUL_HTTP_SSL_VERIFY", variables, otherwise=True),
        )

    def context(self) -> ssl.SSLContext:
        """What connections are made with: TLS 1.2 or newer. Raises InputRefused, which names variable and file."""
        if bool(self.cert) is not bool(self.key):
            there, missing = "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"
            if self.key:
                there, missing = missing, there
            raise InputRefused(f"{there} is set without {missing}", remedy=f"set {missing} too")
        files = [self.ca_file] if self.ca_file else self._below(self.ca_folder)
        if self.ca_file or self.ca_folder:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for file in files:
            _trust(context, file, "CONSUL_CACERT" if self.ca_file else "CONSUL_CAPATH")
        if self.cert:
            _show(context, self.cert, self.key)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _below(self, folder: str) -> list[str]:
        """Every file there and further below, as Consul takes them: OpenSSL itself wants names made of hashes."""
        if not folder:
            return []
        found = sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
        if not found:
            raise InputRefused(f"CONSUL_CAPATH: there are no files in {folder}", remedy="name another folder")
        return found


def switch(name: str, variables: Mapping[str, str] = os.environ, *, otherwise: bool = False) -> bool:
    """What a variable says that is true or false; `otherwise` when it is not set."""
    text = variables.get(name, "")
    if not text:
        return otherwise
    if text not in _TRUE | _FALSE:
        raise InputRefused(
            f"{name} is {text[:40]!r}: neither true nor false", remedy=f"{name}=true or =false"
        )
    return text in _TRUE


def _trust(context: ssl.SSLContext, file: str, variable: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as error:
        raise InputRefused(f"{variable}: there is no certificate in {file}", remedy=_PEM) from error
    except OSError as error:
        raise _unreadable(variable, file, error) from error


def _show(context: ssl.SSLContext, cert: str, key: str) -> None:
    def locked() -> str:  # else OpenSSL asks the terminal, and waits
        raise InputRefused(
            f"CONSUL_CLIENT_KEY: the key in {key} is encrypted",
            remedy="take the password away: openssl pkey -in KEY -out NEW",
        )

    for variable, file in (("CONSUL_CLIENT_CERT", cert), ("CONSUL_CLIENT_KEY", key)):
        try:
            Path(file).open("rb").close()
        except OSError as error:
            raise _unreadable(variable, file, error) from error
    try:
        context.load_cert_chain(cert, key, password=locked)
    except ssl.SSLError as error:
        raise InputRefused(
            f"{cert} (CONSUL_CLIENT_CERT) and {key} (CONSUL_CLIENT_KEY) are not a certificate and its key",
            remedy=_PEM,
        ) from error


def _unreadable(variable: str, file: str, error: OSError) -> InputRefused:
    why = (error.strerror or "no reason given").lower()
    return InputRefused(f"{variable}: {file} cannot be read: {why}", remedy=f"mend or unset {variable}")


_PEM = "the files have to be PEM, as `consul tls` and `openssl` write them"
