"""Time to objective: how long each solver takes to come how near the optimum, pass by pass.

``python -m benchmarks.solvers`` runs every solver on every problem, each in a process of its own
and never two at once, and writes the traces, a table and a plot. A clock starts right before
``fit`` is called on data already in memory, and every solver starts at zero, as scikit-learn does.
Which solver is how fast on which kind of problem is :mod:`benchmarks.regimes`' question; here is
what a solver had reached by when, of those that can be looked into.

A *pass* goes over all rows once. Of scikit-learn's hooked solvers it is one call that evaluates the
loss, a gradient, a Hessian or a product with it; they are not equally dear, so seconds decide.
"""
