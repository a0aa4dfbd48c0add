"""What is found out about each sample beside its activations, one row a sample, and what is trained for that."""
