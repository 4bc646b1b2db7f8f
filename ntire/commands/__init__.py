"""The commands, one module a noun: what is typed and the function behind it."""
