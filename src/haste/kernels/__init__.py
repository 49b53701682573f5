"""Products and training steps of output layers: naive references, torch and Triton backends."""
