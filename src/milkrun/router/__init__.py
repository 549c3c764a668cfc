"""The router: from catalog and weights to what users get."""
