"""The command `python -m training`: Lightning's command line over the settings of this project."""
