"""The loop as steps, defined once; people, schedulers and tests run the same ones."""
