"""Whatever is in a certificate's file, it is good or refused in words."""

from __future__ import annotations

import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.router.certificates import judged

MADE = trustme.CA().issue_cert("shop.example")
CERTIFICATE = MADE.cert_chain_pems[0].bytes()
KEY = MADE.private_key_pem.bytes()
WHOLE = CERTIFICATE + KEY
PIECES = [
    CERTIFICATE,
    KEY,
    WHOLE,
    b"\n",
    b"\0",
    b"-----BEGIN CERTIFICATE-----\n",
    b"PRIVATE KEY-----",
    b"\xff" * 9,
]


def refused(data: bytes) -> bool:
    try:
        judged(data)
    except InputRefused:
        return True
    return False


def test_words_of_any_language_may_stand_beside_it():
    assert judged("# für den Laden\n".encode() + WHOLE) == judged(WHOLE)


def test_key_and_certificate_may_come_in_any_order():
    assert judged(CERTIFICATE + KEY) == judged(KEY + CERTIFICATE)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=40)), max_size=5))
def test_it_is_good_only_with_a_certificate_and_its_key(pieces):
    data = b"".join(pieces)

    assert refused(data) or (CERTIFICATE.strip() in data and KEY.strip() in data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE) - 30))
def test_a_file_that_is_half_written_is_refused(length):
    assert refused(WHOLE[:length])
