"""Where tables come from: text, binary files, memory; and whether several go together."""
