"""Errors of jsonargparse as one line: the key, what is wrong, and the given value."""

import re

NOISE = re.compile(
    r"$|\d+ validation error|For further information|Does not validate|Subtypes:|Errors:|Given value type"
)


def one_line(complaint: str) -> str:
    """One line from jsonargparse's paragraph: the flag, the expected value, and the given value."""
    if complaint.startswith('Parser key "config"'):
        return "--config: no YAML file there; give the path of one"
    lines = [line.strip(" -") for line in complaint.splitlines()]
    relevant = [line for line in lines if not NOISE.match(line)]
    key = re.search(r'Parser key "(.*?)"', complaint)
    relevant = [line for line in relevant if not line.startswith("Parser key")] if key else relevant
    text = re.sub(r"\s*\[type=.*?\]", "", "; ".join(relevant[:4]))
    return f"--{key[1]}: {text}" if key else text
