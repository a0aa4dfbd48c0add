"""What the frozen model does with each example: pooled activations per sample and layer."""
