"""A few files in one, as Consul's tools read them: a gzipped tar whose last file, SHA256SUMS, vouches for the rest.

What is read is only what `packed` writes: plain files one after the other, under a head with our name. Pure.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping

HEAD = b"\x1f\x8b\x08\x08\0\0\0\0\0\xffmilkrun-registry-snapshot\0"
"""A gzip header that names what is inside; `gunzip -l` and `file` show it."""
SUMS = "SHA256SUMS"
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_GZIP = 31
"""Of zlib's ways to say what a stream is: gzip, with its checksum."""


def packed(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files."""
    sums = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in files.items())
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    out, crc, size = [HEAD], 0, 0
    for name, body in [*files.items(), (SUMS, sums.encode())]:
        for part in (_header(name, len(body)), body, bytes(-len(body) % _BLOCK)):
            out.append(deflate.compress(part))
            crc, size = zlib.crc32(part, crc), size + len(part)
    out.append(deflate.compress(_END))
    crc, size = zlib.crc32(_END, crc), size + len(_END)
    return b"".join([*out, deflate.flush(), struct.pack("<II", crc, size & 0xFFFFFFFF)])


def unpacked(file: bytes, at_most: int) -> dict[str, memoryview]:
    """The files of an archive, as their sums say. Raises ValueError for one that is not whole or is too large."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        whole = memoryview(unpacker.decompress(file, at_most))
    except zlib.error as error:
        raise ValueError(f"its compression is damaged ({error})") from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"it holds more than {at_most} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("a part is missing, or there is more than there should be")
    found = dict(_files(whole))
    if SUMS not in found:
        raise ValueError("it does not say what its contents should be")
    told = bytes(found.pop(SUMS))
    sums = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in found.items())
    if told != sums.encode():
        raise ValueError("its contents do not have the checksums that it names")
    return found


def _files(whole: memoryview) -> Iterator[tuple[str, memoryview]]:
    place = 0
    while place + _BLOCK <= len(whole):
        block = bytes(whole[place : place + _BLOCK])
        if not any(block):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise ValueError(f"a header of a file in it is damaged ({error})") from error
        end = place + _BLOCK + header.size
        if not header.isreg() or header.size < 0 or end > len(whole):
            raise ValueError("it holds something else than whole plain files")
        yield header.name, whole[place + _BLOCK : end]
        place = end + -header.size % _BLOCK


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
