"""Side-by-side comparisons; results stand in README.md beside this file."""
