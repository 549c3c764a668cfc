"""The embedded registry: Consul's HTTP API over one durable state machine, in one process."""
