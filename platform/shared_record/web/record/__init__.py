"""The customer's pages under ``/c/{handle}``."""
