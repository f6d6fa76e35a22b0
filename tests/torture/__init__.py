"""The promises about kernels (K), runs (R, O) and input (S), proven at length.

`python -m tests.torture`, or `make torture`. A slice of every row runs with the ordinary tests, by
test_slice.py.
"""
