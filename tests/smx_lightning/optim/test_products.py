"""A pass's two products: the same, whatever the threads, the number of rows and how they lie."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smx_lightning.optim import minimise
from smx_lightning.optim.products import LEAST_FEATURES, LEAST_ROWS, _shares, scores_of, sums_of

LAYOUTS = {
    "rows": lambda x: x.contiguous(),
    "columns": lambda x: x.T.contiguous().T,
    "every second column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "one row": lambda x: x[:1].expand(len(x), -1),
}
ROWS = [*range(3), *(times * LEAST_ROWS + by for times in (1, 2, 3, 5) for by in (-1, 0, 1)), 1000]


@pytest.fixture(autouse=True)
def _threads():
    """A test may set them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(
    st.integers(1, 5),
    st.sampled_from(ROWS),
    st.sampled_from([1, LEAST_FEATURES - 1, LEAST_FEATURES, 301]),
    st.sampled_from([1, 2, 7, 100]),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_they_are_those_of_all_rows_at_once(threads, rows, features, classes, layout, laid, dtype):
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias, residual = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, features), (classes, features), (classes, 1), (classes, rows))
    )
    x = LAYOUTS[layout](x.to(dtype))
    residual = residual[:1].expand(classes, -1) if laid == "one row" else residual
    scores = scores_of(x, weight.to(dtype), bias.to(dtype))
    sums = sums_of(x, LAYOUTS[laid](residual.to(dtype)))
    assert scores.dtype == sums.dtype == dtype
    close = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-11}
    torch.testing.assert_close(scores.double(), weight @ x.double().T + bias, **close)
    torch.testing.assert_close(sums.double(), residual @ x.double(), **close)
    # As a softmax over the classes wants them.
    assert scores.stride(1) == 1 or rows == 1 or classes == 1


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="no MKL")
@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_each_thread_has_a_product_of_enough_rows(threads):
    torch.set_num_threads(threads)
    for rows in ROWS:
        shares, together = _shares(torch.zeros(rows, LEAST_FEATURES))
        assert shares == max(min(threads, rows // LEAST_ROWS), 1)
        assert rows - shares < together <= rows
        assert together % shares == 0
        assert _shares(torch.zeros(rows, LEAST_FEATURES - 1)) == (1, rows)


@pytest.mark.parametrize("rows", [999, 1000])
def test_the_optimum_depends_on_no_number_of_threads(rows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 300, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (rows,), generator=generator)
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(minimise([(x, y)], 300, 3, l2=1e-2, tol=1e-10, dtype=torch.float64))
    for other in found[1:]:
        assert other.status == found[0].status
        torch.testing.assert_close(other.weight, found[0].weight, rtol=0, atol=1e-9)
