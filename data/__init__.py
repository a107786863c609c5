"""From a source to a validated, masked table with a manifest."""
