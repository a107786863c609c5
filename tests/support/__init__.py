"""What several tests share: data, archives, servers that are really started, and a model of a cluster."""
