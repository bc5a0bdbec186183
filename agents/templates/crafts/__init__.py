"""The work itself, as plain functions: no market, no agent, nothing but input and output."""
