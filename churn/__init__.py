"""The command line: arguments, settings, what is shown; the work is done by the rooms below."""
