"""The command line: arguments, settings, console output. The rooms below do the work."""
