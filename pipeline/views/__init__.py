"""Decide a finished run again: other thresholds, no model, and clean tars written anew."""
