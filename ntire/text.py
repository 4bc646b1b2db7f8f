"""Text of strangers, made safe to show."""


def printable(text: str) -> str:
    """`text` with every character escaped that a terminal acts on or that looks like nothing; line breaks stay."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )
