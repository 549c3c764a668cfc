"""The agent: on each host it runs, probes, registers, drains and stops the instances that git asks for."""
