"""How requests come in: the address, TLS, and what is believed of what a caller says of itself. Pure.

- HTTP/2 needs no word in clear: HAProxy knows its first bytes. By TLS it is offered beside HTTP/1.1.
- `crt-list`: the certificates are copies in HAProxy's own folder, named by what is in them, so a file that breaks or
  vanishes elsewhere changes nothing that serves. The first one is shown to who asks for no name that is there.
- What a caller says of who called *it* is believed of the networks in `trust` only. Instances may read a header by
  its name with any other sign for `-` (CGI makes `X_Real_IP` and `X-Real-IP` one variable), so those go as well.
- `Connection: X-Forwarded-For` would ask the next hop to drop what we say (CVE-2025-48865, CVE-2024-45410): of that
  header only `upgrade` goes on.
- The callers of a sidecar on loopback are the host's own programs. What they say of the user whom they call for is
  theirs to say: they could as well call the instance themselves. So nothing is taken away and nothing added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from milkrun.router.haproxy import encode

CERTIFICATES_FILE = "certificates.list"
CERTIFICATES_FOLDER = "certificates"
TLS = f"ssl crt-list {CERTIFICATES_FILE} ssl-min-ver TLSv1.2"

_SAID_OF_CALLERS = "forwarded|x[^a-z0-9]forwarded([^a-z0-9].*)?|x[^a-z0-9]real[^a-z0-9]ip"
_OURS = "x[^a-z0-9]milkrun([^a-z0-9].*)?"
_BETWEEN = r"([/\\]|%2f|%5c)"
_DOTS = rf"(^|{_BETWEEN})(\.|%2e){{1,2}}(;[^/\\]*)?($|{_BETWEEN})"


def bind(listen: tuple[str, int], *, tls: bool, http: bool) -> str:
    """The line by which a frontend listens."""
    words = ["  bind", encode.bind(*listen)]
    if tls:
        words.append(TLS)
        if http:
            words.append("alpn h2,http/1.1")
    return " ".join(words)


def certificates(names: Collection[str]) -> str:
    """The list of certificates: the first is the one for who asks for no name that is there."""
    return "".join(f"{CERTIFICATES_FOLDER}/{encode.digest(name)}.pem\n" for name in names)


def plain_paths() -> Iterator[str]:
    """A path that goes up (`/../`, in whatever spelling) is refused: who reads it later may read another path than
    the one that was routed. Clients resolve such paths before they ask (RFC 3986, 5.2.4).
    """
    # The cheap search first: few paths have any of these, and only those are put to the pattern.
    suspect = r"{ path -m sub -i '/.' '\.' %2e %2f. %5c. }"
    yield f"  http-request deny deny_status 400 if {suspect} {{ path -m reg -i '{_DOTS}' }}"


def believed(trust: Collection[str], *, tls: bool) -> Iterator[str]:
    """Instances are told who called by what we saw, and by what the networks in `trust` say."""
    if trust:
        yield f"  acl trusted src {' '.join(map(encode.network, trust))}"
        yield f"  http-request del-header '^({_SAID_OF_CALLERS})$' -m reg unless trusted"
        yield f"  http-request del-header '^{_OURS}$' -m reg"
    else:  # each pattern is put to every header of every request: so one of both
        yield f"  http-request del-header '^({_SAID_OF_CALLERS}|{_OURS})$' -m reg"
    yield "  http-request set-var(txn.upgrade) bool(true) if { req.hdr(connection) -m str -i upgrade }"
    yield "  http-request del-header connection"
    yield "  http-request set-header connection upgrade if { var(txn.upgrade) -m bool }"
    said = " unless trusted { req.hdr(x-forwarded-proto) -m found }" if trust else ""
    yield f"  http-request set-header x-forwarded-proto {'https' if tls else 'http'}{said}"
    yield "  option forwardfor"
