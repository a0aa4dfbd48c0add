"""Ways to take rows from a method's ranking beside the best ones: pure functions, one kind of strategy a file."""
