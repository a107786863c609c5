"""Purchases on a topic become online features within a second: `churn stream`."""
