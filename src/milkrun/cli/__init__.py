def main() -> None:
    """Nothing yet."""
