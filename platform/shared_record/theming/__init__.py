"""Themes: typed tokens on one fixed stylesheet, and a template environment of its own for each theme."""
