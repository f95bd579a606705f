"""Shared Record: one persistent, branded, independently checkable link per customer."""

__version__ = "0.1.0"
