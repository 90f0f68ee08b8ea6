"""Models of the objective's curvature, and which of them is in use when."""
