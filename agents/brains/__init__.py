"""How an agent decides what to do: plans by rules, or by a language model behind the same port."""
