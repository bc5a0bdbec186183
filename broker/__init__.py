"""The broker: who is there, and how messages travel."""
