"""The papers' figures, one module per paper on the shared :mod:`semcom_gym.benchmarks.figures.sweep`."""
