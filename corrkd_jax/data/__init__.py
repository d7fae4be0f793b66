"""Files and generators to NumPy arrays, one module for each data family."""
