"""Data: files and generators to NumPy arrays, one module for each family of data sets."""
