"""Where the rows are seen from, and in which features: the same problem, easier to solve."""
