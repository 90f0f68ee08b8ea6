"""Model → graph."""
