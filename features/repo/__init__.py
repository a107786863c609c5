"""The feature repository for Feast's command line."""
