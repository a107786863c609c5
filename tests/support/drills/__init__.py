"""What rollout drills need: servers, callers that count every answer, and faults."""
