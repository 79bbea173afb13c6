"""``compress`` by steps: a recipe's own list of what is done, in its order, each step in a folder of its own."""
