"""A run folder: recipe, edit, pictures, and what a run will take."""
