"""What a capability looks like: statistics of the pool's neurons, and one summary of each capability."""
