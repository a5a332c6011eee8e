"""What methods train on: prompts, pictures, sentences, what is kept."""
