"""Neuron-aware selection of instruction-tuning data (NAIT, arXiv 2603.13201) as Dagster assets."""

__version__ = "0.1.0"
