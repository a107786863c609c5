"""Addresses of databases and servers in messages, without their passwords."""

import re

PASSWORDS = (
    re.compile(r"(://[^:/?#@\s\"']*:)[^@\s\"']+(?=@)"),  # scheme://user:password@host
    re.compile(r"([?&;\s]\w*password=)[^&;\s\"']+", re.IGNORECASE),  # ...?password=, and libpq's own form
)


def masked(text: str) -> str:
    """`text` with `***` in place of the password of every address; in doubt more is replaced, not less."""
    for password in PASSWORDS:
        text = password.sub(r"\1***", text)
    return text


def failure(what: str, address: str, error: BaseException) -> str:
    """One line: what cannot be reached, where, at which address, and the first line of the error."""
    if isinstance(error, ImportError):
        reason = (
            f"no driver for it ({error}); `pip install 'churn-prediction[postgres]'` installs PostgreSQL's"
        )
    else:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return masked(f"{what} at {address}: {reason}")
