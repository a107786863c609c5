"""What the data and the model do once they are out: drift, and later performance."""
