"""Tables, figures, claims."""
