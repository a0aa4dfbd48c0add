"""What was chosen and why, on one page: reads what the rooms before it made, and computes nothing that they need."""
