"""The whole environment on this machine: its parts as processes, started, watched and stopped in order."""
