"""The checks that the registry's own agent runs: HTTP, TCP and alias.

What decides is pure; sockets are in `pin`, `http_probe` and `tcp_probe`, clocks and loops in `looks` and `runner`.
"""
