"""The policies that only lack a name: those of Consul's that speak of what there is here. Pure.

Consul has more of them, for a service mesh and for Nomad; they are not known here.
"""

from __future__ import annotations

import msgspec

_NAME = "{{.Name}}"
_SERVICE = """
service "{{.Name}}" {
  policy = "write"
}
service "{{.Name}}-sidecar-proxy" {
  policy = "write"
}
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
"""
_NODE = """
node "{{.Name}}" {
  policy = "write"
}
service_prefix "" {
  policy = "read"
}
"""
_DNS = """
node_prefix "" {
  policy = "read"
}
service_prefix "" {
  policy = "read"
}
query_prefix "" {
  policy = "read"
}
"""


class Known(msgspec.Struct, frozen=True):
    """A template: its text, in which the name stands where `named` says that it takes one."""

    text: str
    description: str

    @property
    def named(self) -> bool:
        """Whether it takes a name."""
        return _NAME in self.text


TEMPLATES = {
    "builtin/service": Known(
        _SERVICE, "Gives the token permissions to register a service and discover others"
    ),
    "builtin/node": Known(_NODE, "Gives the token permissions to register a node and discover services"),
    "builtin/dns": Known(_DNS, "Gives the token permissions to resolve services and nodes by DNS"),
}


def rendered(template: str, name: str) -> str:
    """The policy's text. The name has been looked at: it consists of letters, digits, `-` and `_`."""
    return TEMPLATES[template].text.replace(_NAME, name)
