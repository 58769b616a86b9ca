"""The compiled kernels (Cython): the same names and results as the twins in `pure`."""
