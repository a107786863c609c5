"""What rollout drills need: servers, clients that count every answer, and faults."""
