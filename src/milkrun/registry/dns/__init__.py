"""The catalog as DNS: the same names and records as Consul's, from memory."""
