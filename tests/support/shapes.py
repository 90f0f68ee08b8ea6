"""The type checker that jaxtyping calls under pytest: it looks at shapes and leaves the rest.

What users pass wrongly must reach the library's own messages, which a check of every annotation
would forestall; and shapes are what mypy cannot see.
"""

from beartype import beartype

SHAPED = ("Float[", "Int[", "Shaped[")


def check(function):
    """Check the annotations that name a shape, at every call."""
    annotations = getattr(function, "__annotations__", {})
    shapes = {
        name: hint
        for name, hint in annotations.items()
        if isinstance(hint, str) and hint.startswith(SHAPED)
    }
    if not shapes:
        return function
    function.__annotations__ = shapes
    checked = beartype(function)
    function.__annotations__ = checked.__annotations__ = annotations
    return checked
