"""One view of everything that the registry knows: what `status`, `explain` and the console show."""
