"""Benchmarks of the whole stack on one machine: `make bench`. Figures, never assertions."""
