"""Ways to reach a ledger: in this process, or over HTTP."""
