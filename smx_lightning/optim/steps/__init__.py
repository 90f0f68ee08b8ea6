"""Along which direction, how far, and whether that still brings progress."""
