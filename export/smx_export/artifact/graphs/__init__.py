"""A file's graph, compared with another as a graph. No torch."""
