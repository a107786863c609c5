"""Performance of the model in production: on labels that have matured, on the first weeks of labels, and
estimated without labels."""
