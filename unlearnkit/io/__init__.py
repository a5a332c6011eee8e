"""Reading and writing files, and several processes."""
