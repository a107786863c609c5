"""From features to a judged, packaged model."""
