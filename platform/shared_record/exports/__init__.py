"""Exports: one period of one customer as a file, in a format that a plugin provides."""
