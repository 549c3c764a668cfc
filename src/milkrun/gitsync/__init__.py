"""What git says becomes what the registry says: one transaction a service and commit."""
