"""What is said about a recipe's model before it runs."""
