"""Tables of what is done to a correct file, a module a kind; whatever it is, it must not pass.

A corruption is a function that spoils a ``ModelProto`` in place, or answers bytes. The decorator
``seen_by`` of its table says which check must fail, and on which models' files.
"""
