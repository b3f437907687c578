"""The prompt language and its way to conditioning tensors."""
