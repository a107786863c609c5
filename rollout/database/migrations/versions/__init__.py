"""One migration in each file; their numbers give the order."""
