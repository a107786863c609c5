"""Trains a registered version again, from the data and settings that its run recorded."""
