"""Tenants: their data planes, settings and step-up methods. Each function works within the scope it is given."""
