"""The methods, one file each: what a candidate is worth."""
