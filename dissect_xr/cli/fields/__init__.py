"""Fields of recipes, a file for each part that has many kinds."""
