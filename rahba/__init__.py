"""The common language of the market: ids, money, bytes, signed envelopes, messages, errors."""
