"""Monitors data and model in production: drift of features, and evidence of a change from early labels."""
