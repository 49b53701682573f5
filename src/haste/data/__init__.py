"""Fetching, reading, cleaning and tokenising data sets."""
