"""Where the broker keeps what it searches."""
