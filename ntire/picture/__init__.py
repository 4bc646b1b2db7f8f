"""Pictures and raw frames: reading, writing, cutting into tiles, damaging, drawing side by side."""
