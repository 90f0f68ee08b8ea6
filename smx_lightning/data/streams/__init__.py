"""Parquet files larger than memory, as batches."""
