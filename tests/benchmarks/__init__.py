"""How fast it is, beside how fast it should be: `python -m tests.benchmarks`. Printed, never asserted."""
