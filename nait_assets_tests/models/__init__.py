"""Tests of how a language model is run."""
