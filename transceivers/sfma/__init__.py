"""Semantic feature multiple access: SC-SFMA and the learned schemes beside it, their training and measurement."""
