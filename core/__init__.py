"""What every room may use: errors, layered settings, the workspace, private files. Imports no other room."""
