"""Evaluate an edit against the untouched model: plan, pictures, rows, figures, claims, and pages."""
