"""Search: which sparsity each weight gets, found by trying."""
