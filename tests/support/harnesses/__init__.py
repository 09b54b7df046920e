"""Harnesses for the stores that lockkit ships."""
