"""Folders of IDX files."""

import struct

import numpy as np


def idx_folder(folder, y, y_test):
    rng = np.random.default_rng(0)
    images = {}
    for part, values in (("train", y), ("t10k", y_test)):
        images[part] = rng.integers(0, 256, (len(values), 4, 3), np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images[part])
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.asarray(values))
    return images


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())
