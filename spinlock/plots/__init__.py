"""Plots of datasets and tokens. This is the only package that imports matplotlib."""
