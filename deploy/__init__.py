"""What runs around the rooms: stores, clusters and infrastructure. No room imports it."""
