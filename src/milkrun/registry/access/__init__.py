"""Who may do what in the registry: rules, tokens, and what a token may change and see."""
