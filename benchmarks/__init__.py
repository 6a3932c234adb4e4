"""Scores against certified bounds, leaderboards, the papers' figures, speed, and the command ``semcom-gym``."""
