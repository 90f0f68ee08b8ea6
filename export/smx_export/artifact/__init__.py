"""The file by itself, without torch: reading it, its seal, its test vectors and tolerances."""
