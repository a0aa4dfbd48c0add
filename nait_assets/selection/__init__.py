"""Which candidates we keep, and the folders that fine-tuning tools read."""
