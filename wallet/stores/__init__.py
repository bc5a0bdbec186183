"""Where the log is kept: in memory for tests, in SQLite for real."""
