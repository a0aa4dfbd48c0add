"""What learning from a subset does: models tuned on subsets, on controls of them, and on small probes of the pool."""
