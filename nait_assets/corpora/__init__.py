"""What we choose from and what we choose for: normalised conversations with a content-derived `sample_id`."""
