"""How to name the class that wrote a checkpoint, on a command line."""

from __future__ import annotations

SCRIPTS = ("__main__", "__mp_main__")  # what the module of a running script is called
LOCAL = "<locals>"


def how_to_name(model_class: str, option: str, mark: str = ":") -> str:
    """The remedy where a checkpoint is of another class than the one that was named.

    Args:
        model_class: The full name in the checkpoint.
        option: Of the command line, that takes a class.
        mark: Between module and class, as is customary for the option: ``:`` or ``.``.
    """
    module, _, name = model_class.rpartition(".")
    if LOCAL in model_class:
        return (
            f"{name} was made inside a function, where nothing can import it: move it to the top "
            f"of a file, and name it with {option} FILE{mark}{name}, FILE without its .py"
        )
    if module.partition(".")[0] in SCRIPTS:
        return (
            f"{name} is of a script or a notebook: in a script, let what it runs follow "
            f'if __name__ == "__main__":, from a notebook, copy the class into a file; then name '
            f"it, in that folder, with {option} FILE{mark}{name}, FILE without its .py"
        )
    return f"name the class with {option} {module}{mark}{name}"
