"""What each command does: call the rooms, show the result. Rooms are imported when they are needed."""
