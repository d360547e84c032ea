"""DDC: two learnt numbers a user correct popularity bias after training."""
