"""Consul's HTTP API: one file an endpoint family, each with its routes."""
