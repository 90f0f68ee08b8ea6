"""Products of rows with themselves, judged by the plain product."""

import pytest
import torch

from smx_lightning.optim.models.dense import (
    ALIGNED,
    LEAST_HALVED,
    add_gram,
    gram,
    gram_work,
    rows_like,
)

# About where the halves are halved themselves, where columns fill cache lines, and one beside.
WIDTHS = sorted(
    {1, 7} | {w + by for w in (LEAST_HALVED, 2 * LEAST_HALVED, 784) for by in (-1, 0, 1, 17)}
)


def table(rows, width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(width)
    return torch.randn(rows, width, generator=generator, dtype=dtype)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("layout", ["rows", "columns", "aligned"])
def test_a_gram_matrix_is_added_up_to_the_diagonal(width, layout):
    x = table(20, width)
    laid = {
        "rows": lambda: x.clone(),
        "columns": lambda: x.T.contiguous().T,
        "aligned": lambda: rows_like(x, *x.shape).copy_(x),
    }[layout]()
    before = table(width, width)
    into = before.clone()
    add_gram(into, laid)
    torch.testing.assert_close(into.tril(), before.tril() + (x.T @ x).tril())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_whole_gram_matrix_is_the_plain_product(width):
    x = table(20, width)
    whole = gram(x)
    torch.testing.assert_close(whole, x.T @ x)
    if width >= LEAST_HALVED:  # narrower ones are the BLAS's
        assert torch.equal(whole, whole.T)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("width", [1, ALIGNED - 1, ALIGNED, ALIGNED + 1, 785])
def test_every_row_begins_where_a_cache_line_does(count, width):
    room = rows_like(torch.zeros((), dtype=torch.float32), count, width)
    assert (room.shape, room.dtype) == ((count, width), torch.float32)
    assert room.stride(0) % ALIGNED == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_the_work_is_that_of_the_products_that_are_made(width):
    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        made = 0.0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.addmm_.default:
                _, left, right = args
                self.made += 2.0 * left.shape[0] * left.shape[1] * right.shape[1]
            return function(*args, **(kwargs or {}))

    with Counting() as counting:
        add_gram(torch.zeros(width, width), torch.ones(3, width))
    assert counting.made == 3 * gram_work(width)
    assert gram_work(width) <= 2.0 * width**2
