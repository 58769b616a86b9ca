"""The hot loops: each a compiled module beside a readable twin that is its contract."""
