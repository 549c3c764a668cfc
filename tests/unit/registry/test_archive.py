from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.archive import HEAD, packed, unpacked

NAMES = st.text("abcdefgh.", min_size=1, max_size=20)
AT_MOST = 1 << 20


@given(st.dictionaries(NAMES, st.binary(max_size=2000)))
def test_what_goes_in_comes_out_here_and_from_any_tar(files):
    file = packed(files)

    assert {name: bytes(body) for name, body in unpacked(file, AT_MOST).items()} == files
    with tarfile.open(fileobj=io.BytesIO(file), mode="r:gz") as archive:
        assert archive.getnames() == [*files, "SHA256SUMS"]


@given(st.binary(max_size=1000), st.booleans())
def test_whatever_else_it_is_is_refused_in_words(body, is_gzip):
    with pytest.raises(ValueError, match=" "):
        unpacked(gzip.compress(body) if is_gzip else HEAD + body, AT_MOST)


@given(st.data())
def test_what_was_changed_inside_is_refused(data):
    whole = bytearray(gzip.decompress(packed({"a": b"milk", "b": b"hay" * 300})))
    place = data.draw(st.integers(0, len(whole) - 1025))  # what pads the end says nothing
    whole[place] ^= data.draw(st.integers(1, 255))

    try:
        found = unpacked(gzip.compress(whole), AT_MOST)
    except ValueError:
        return
    assert {name: bytes(body) for name, body in found.items()} == {"a": b"milk", "b": b"hay" * 300}


def test_more_than_is_wanted_is_not_unpacked():
    file = packed({"a": bytes(AT_MOST)})

    with pytest.raises(ValueError, match="more than 1024 bytes"):
        unpacked(file, 1024)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE]
)
def test_only_plain_files_are_taken(kind):
    info = tarfile.TarInfo("a")
    info.type = kind
    with pytest.raises(ValueError, match="something else than whole plain files"):
        unpacked(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)), AT_MOST)
