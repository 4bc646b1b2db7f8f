"""A blind user study in the browser: its design as data, the pictures that it shows, the votes, and what they say."""
