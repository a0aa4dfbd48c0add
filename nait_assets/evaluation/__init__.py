"""What models can do after they were trained: results on held-out tasks, what scores foretold, and comparisons."""
