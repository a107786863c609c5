"""Envoy's configuration as plain data (JSON of its v3 API), computed from the settings and what is served."""
