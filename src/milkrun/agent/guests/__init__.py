"""Guests: containers on this host that somebody else started, and that say by their labels which service they are."""
