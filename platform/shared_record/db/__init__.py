"""The database: engine, exact types, the tenant scope that fails closed, and the migrations runner."""
