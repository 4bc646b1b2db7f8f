"""What strangers hand in: checked, verified in a sandbox, packed."""
