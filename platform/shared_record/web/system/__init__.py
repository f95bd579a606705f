"""Endpoints that belong to no tenant: static files and health."""
