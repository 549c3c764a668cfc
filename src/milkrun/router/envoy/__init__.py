"""Envoy as the data plane: what it should do as its own messages, the server it asks for them, and its process."""
