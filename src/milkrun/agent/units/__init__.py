"""What an instance is made of on this host: today a process."""
