"""Who reaches which gap how soon, on every kind of problem: ours and the fastest peers.

Every solver is fitted afresh at ever tighter tolerances, then at some between those that missed a
gap and those within it, and each fit is timed whole. So nothing is
asked of a peer but its public interface, and what a solver answers is judged from outside: by the
objective of its weights in float64. The seconds to a gap are those of its fastest fit within it.

- :mod:`benchmarks.regimes.solvers`: ours twice, and the peers that are installed.
- :mod:`benchmarks.regimes.worker`: the process in which all fits of a problem are made.
- :mod:`benchmarks.regimes.measuring`: which fit is next, and when a solver has done enough.
- :mod:`benchmarks.regimes.records`: fits as lines of JSON, so that a rerun goes on.
- :mod:`benchmarks.regimes.tables`: tables and shortfalls from these lines alone.

``python -m benchmarks.regimes [--problems …] [--solvers …] [--threads N] [--cap S] [--json FILE]``
"""
