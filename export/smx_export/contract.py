"""The names inside the file that users rely on. No imports: every other module may use them."""

INPUT = "input"
LOG_PROBS = "log_probs"
PROBS = "probs"
SCORES = "scores"  # the logits: largest wins
LABEL = "label"  # index of the chosen class
TOP_CLASSES = "top_classes"  # indices of the largest scores, the largest first
TOP_PROBS = "top_probs"  # and their probabilities
OUTPUTS = (LOG_PROBS, PROBS)
TOP = (TOP_CLASSES, TOP_PROBS)
ALL_OUTPUTS = (*OUTPUTS, SCORES, LABEL)
KNOWN_OUTPUTS = (*ALL_OUTPUTS, *TOP)  # in the order in which a file has them
BATCH = "batch"
LINEAR = "softmax_regression"  # name of a graph without a backbone: NaN in, NaN out

# Metadata keys; every value is JSON.
CLASS_NAMES = "class_names"
INPUT_SHAPE = "input_shape"
INPUT_RANGE = "input_range"
FEATURE_NAMES = "feature_names"
SCHEMA = "schema"  # which columns of a table the features are
THRESHOLD = "threshold"
ACTIVATION = "activation"  # of what is no softmax
PROVENANCE = "provenance"
PROFILE = "profile"
SELFTEST = "selftest"
SHA256 = "sha256"
