"""What may refuse or rewrite a message, in one ordered list."""
