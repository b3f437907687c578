"""Texts as they come off a wire, made fit for databases, files and UTF-8."""


def clean_text(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can carry, and drop NULs, which no PNG text or PostgreSQL can hold."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
