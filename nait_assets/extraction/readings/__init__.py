"""What is found out about each sample by itself, one row a sample: one module each, and the engine that keeps them."""
