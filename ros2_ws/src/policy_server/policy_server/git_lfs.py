"""Files that Git LFS has not fetched: a pointer of a few lines of text lies in their place."""

FETCH_ADVICE = "a pointer of Git LFS; fetch the file itself with `git lfs pull`"


def is_pointer(content: bytes) -> bool:
    """Whether a file that begins with `content`, at least 24 bytes of it, is a pointer."""
    return content.startswith(b"version https://git-lfs")
