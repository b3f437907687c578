"""Rows in the database, pictures in the object store, and how both are written and read."""
