"""What an edit did, beside the untouched model: plan, pictures, rows, figures, claims, and the pages that tell it."""
