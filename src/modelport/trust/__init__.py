"""What may be opened, and what is refused because opening it could run code."""
