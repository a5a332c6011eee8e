"""What runs the official code of a method beside ours: one file a method."""
