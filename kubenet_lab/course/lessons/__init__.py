"""What the cells of each notebook call: one module a notebook."""
