"""Public stand-ins for tests: a registry on an ephemeral port, and more to come."""
