"""Filter expressions over the registry's answers: the language of `?filter=`. Pure."""
