"""What a lab needs of the machine's kernel, checked before it starts."""
