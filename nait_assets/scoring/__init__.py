"""What each candidate is worth for each target, by each method. One file a method; higher is better everywhere."""
