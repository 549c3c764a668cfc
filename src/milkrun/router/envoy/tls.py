"""Who may ask from elsewhere: whoever shows a certificate of the authority. New files count from the next caller on."""

from __future__ import annotations

from pathlib import Path

import grpc
import structlog

from milkrun.router.envoy.outside import Outside


def credentials(place: Outside) -> grpc.ServerCredentials:
    """What the discovery server shows, and asks of callers. Raises OSError for a file that cannot be read."""
    shown = _Shown(place)
    return grpc.dynamic_ssl_server_credentials(
        shown.read(), shown.renewed, require_client_authentication=True
    )


class _Shown:
    """The files, as they were last whole."""

    def __init__(self, place: Outside) -> None:
        self._files = [Path(place.key), Path(place.certificate), Path(place.authority)]
        self._seen: list[tuple[int, int]] = []

    def read(self) -> grpc.ServerCertificateConfiguration:
        """They as they are now."""
        self._seen = self._signs()
        key, certificate, authority = (file.read_bytes() for file in self._files)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """They, when they are others than before; None when not, or when they cannot be read."""
        try:
            return self.read() if self._signs() != self._seen else None
        except OSError as error:
            structlog.get_logger("envoy").error("a certificate of the discovery server", why=str(error))
            return None

    def _signs(self) -> list[tuple[int, int]]:
        return [(found.st_mtime_ns, found.st_size) for found in (file.stat() for file in self._files)]
