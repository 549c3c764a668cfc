"""HAProxy as the data plane, driven by its runtime socket."""
