"""Where the agents' room keeps its records."""
