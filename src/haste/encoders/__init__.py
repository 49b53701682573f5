"""What turns tokens into features."""
