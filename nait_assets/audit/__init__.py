"""Whether what is stored still is what its records say: the chain from a subset back to sources, model and code."""
