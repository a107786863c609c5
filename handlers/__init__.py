"""All that ships inside the .mar. Imports nothing else of this project."""
