"""The wallet: what is owed, and the proof of it."""
