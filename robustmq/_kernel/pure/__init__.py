"""The twins: the kernels in plain Python, the contract and the oracle of the compiled ones."""
