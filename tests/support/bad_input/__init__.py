"""Tables of what is wrong: a module a kind, a row a case.

A row is the case's name, what is done (an action of ``actions``, in the folder of ``files``), how
it ends (an exit code or an exception) and the message, in which "…" stands for anything.
"""
