"""Quantization: one file for each method; `support_matrix` lists which scheme exists for which backend."""
