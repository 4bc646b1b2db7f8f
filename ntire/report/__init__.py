"""A scoring's results as static pages to look at: leaderboard, entries, pictures."""
