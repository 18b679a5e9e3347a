"""Quantization schemes: `matrix` says which exist for which backend; one file a backend holds the functions."""
