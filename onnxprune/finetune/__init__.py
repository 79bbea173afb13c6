"""Fine-tuning: the torch bridge, the penalties, and the training that keeps masks exact."""
