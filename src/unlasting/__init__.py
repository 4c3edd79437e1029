"""Predict, cell by cell, how cells respond to perturbations that nobody has measured."""
