"""A room as somebody would add one: how often each candidate says a word that a file names."""
