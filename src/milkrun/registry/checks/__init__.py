"""The checks that the registry's own agent runs: HTTP, TCP, gRPC and alias.

What decides is pure; sockets are in `pin` and the probes, clocks and loops in `looks` and `runner`.
"""
