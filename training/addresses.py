"""Addresses of databases and servers, as they may be shown: without their passwords."""

import re

PASSWORDS = (
    re.compile(r"(://[^:/?#@\s\"']*:)[^@\s\"']+(?=@)"),  # scheme://user:password@host
    re.compile(r"([?&;\s]\w*password=)[^&;\s\"']+", re.IGNORECASE),  # ...?password=, and libpq's own form
)


def masked(text: str) -> str:
    """`text` with `***` for the password of every address in it; rather too much than too little."""
    for password in PASSWORDS:
        text = password.sub(r"\1***", text)
    return text


def failure(what: str, address: str, error: BaseException) -> str:
    """One line: what cannot be reached, where, and the first thing that was said about it."""
    if isinstance(error, ImportError):
        said = f"no driver for it ({error}); `pip install 'churn-prediction[postgres]'` has PostgreSQL's"
    else:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return masked(f"{what} at {address}: {said}")
