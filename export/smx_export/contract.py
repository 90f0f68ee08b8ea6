"""The names inside the file that users rely on. No imports: every other room may read them."""

INPUT = "input"
LOG_PROBS = "log_probs"
PROBS = "probs"
OUTPUTS = (LOG_PROBS, PROBS)
BATCH = "batch"

# Metadata keys; every value is JSON.
CLASS_NAMES = "class_names"
INPUT_SHAPE = "input_shape"
THRESHOLD = "threshold"
PROVENANCE = "provenance"
