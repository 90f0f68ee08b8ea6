"""Tables as rows of features: a schema, what it makes of columns, and where tables come from.

No torch: a device that holds a file encodes its rows by the schema in it.
"""

from smx_lightning.tables.schema import Column, Schema

__all__ = ["Column", "Schema"]
