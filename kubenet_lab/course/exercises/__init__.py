"""The exercises, one module a notebook (`nb05.EXERCISES` are those of notebook 05, in its order)."""
