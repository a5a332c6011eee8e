"""A pipeline that can be edited, and what an edit is."""
