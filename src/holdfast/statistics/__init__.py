"""Numbers and what they allow to be said: pure functions of counts, with their sources."""
