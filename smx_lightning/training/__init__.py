"""What a model does under a Trainer: hooks, objective, statistics, precision."""
