from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.settings.check_allow import NEVER, network

NETWORKS = st.ip_addresses().flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda bits: ip_network(f"{address}/{bits}", strict=False)
    )
)


@given(NETWORKS)
def test_a_network_is_read_as_it_is_unless_it_lies_within_what_is_never_reached(found):
    inside = any(found.version == never.version and found.subnet_of(never) for never, _ in NEVER)
    try:
        assert network(str(found)) == found
    except InputRefused:
        assert inside
    else:
        assert not inside


@given(st.text(alphabet="0123456789abcdef.:/%x \n", max_size=24) | st.text(max_size=24))
def test_any_text_is_a_network_or_refused_on_one_line(text):
    reason = ""
    try:
        network(text)
    except InputRefused as refused:
        reason = refused.reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("stable-2", "`stable-2` is not a network", "write one such as 10.1.0.0/16 or 10.1.2.3/32"),
        (
            "10.0.0.1/8",
            "`10.0.0.1/8`: the address is not where that network begins",
            "write 10.0.0.0/8, or 10.0.0.1/32 for that address alone",
        ),
        ("fe80::/64", "`fe80::/64`: a link-local address, which checks never reach", "leave it out"),
    ],
)
def test_a_refusal_says_what_to_write(text, reason, remedy):
    with pytest.raises(InputRefused) as refused:
        network(text)
    assert (refused.value.reason, refused.value.remedy) == (reason, remedy)
