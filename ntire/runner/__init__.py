"""From inputs to PNGs: a method made ready, fed, bounded in memory, and its results written."""
