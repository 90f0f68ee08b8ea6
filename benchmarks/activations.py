"""α-entmax forward and backward: ours, the entmax package, softmax.

Methods take turns, once each a round, in an order drawn anew, since who follows another finds its
operators in the processor's caches; times are medians over the rounds, one thread, float32.

``python -m benchmarks.activations [--repeats N] [--quick]``
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import entmax
import torch
from torch import Tensor

from benchmarks.machine import describe
from smx_lightning import activations

METHODS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "softmax": torch.softmax,
    "sparsemax": activations.sparsemax,
    "entmax's": entmax.sparsemax,
    "entmax15": activations.entmax15,
    "entmax's 1.5": entmax.entmax15,
    "α = 1.3": lambda scores, dim: activations.entmax(scores, 1.3, dim),
    "entmax's 1.3": lambda scores, dim: entmax.entmax_bisect(scores, 1.3, dim),
}
SHAPES = ((1, 10), (32, 10), (1, 1000), (128, 100), (8192, 10), (1024, 1000), (64, 50_000))
FEW = 2**17  # entries below which a round takes so little that ten times as many are made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="one round, small shapes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shapes = SHAPES[:2] if args.quick else SHAPES
    cases = [(shape, -1) for shape in shapes] + [(shape[::-1], 0) for shape in shapes[-3:]]
    print(f"{describe('torch', 'entmax')}, one thread\n")
    print(f"| scores | classes along | {' | '.join(METHODS)} |")
    print(f"| --- | --- |{' --- |' * len(METHODS)}")
    for shape, dim in cases:
        print(row(shape, dim, 1 if args.quick else args.repeats), flush=True)


def row(shape: tuple[int, int], dim: int, repeats: int) -> str:
    """A line of the table: milliseconds of softmax, the others as multiples of that."""
    torch.manual_seed(0)
    order = random.Random(0)
    scores, weights = 2 * torch.randn(shape), torch.randn(shape)
    rounds = repeats * (10 if scores.numel() < FEW else 1)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for number in range(-1, rounds):
        for name in order.sample(list(METHODS), len(METHODS)):
            seconds = once(METHODS[name], scores, weights, dim)
            if number >= 0:
                times[name].append(seconds)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    base = medians.pop("softmax")
    ratios = " | ".join(f"{taken / base:.3g} ×" for taken in medians.values())
    return f"| {shape[0]} × {shape[1]} | {dim} | {1000 * base:.3g} ms | {ratios} |"


def once(
    method: Callable[[Tensor, int], Tensor], scores: Tensor, weights: Tensor, dim: int
) -> float:
    """Seconds of one pass forward and one back."""
    leaf = scores.detach().requires_grad_()
    start = time.perf_counter()
    torch.autograd.backward(method(leaf, dim), weights)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
