"""Writes docs/errors.md from `homeport.model.errors`; with --check, fails when the page is not what the code says."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from homeport.model import errors
from homeport.model.errors import CniError

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
HEAD = """# Errors

Every expected failure carries one of these codes, on a plugin's standard output as CNI's error object
(`{"code", "msg", "details"}`, exit status 1) and on a terminal as one line. Codes below 100 are the
[CNI specification's](https://www.cni.dev/docs/spec/#error); 100 and above are Homeport's. 999 is a bug:
please report it.

A message says what was being done, to what, where, and then what was found and what was expected. Code 11 alone means
"the same call may succeed later".

This page is written from `src/homeport/model/errors.py` by `scripts/write_errors_doc.py`.

| code | name | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """The whole page; classes in order of code, the dynamic ones (a plugin's own code, a group) marked."""
    classes = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, CniError) and c is not CniError]
    dynamic = {errors.PluginError: "the plugin's", errors.SeveralErrors: "the first one's"}
    rows = [
        f"| {dynamic.get(c, str(c.code))} | {c.__name__} | {' '.join((inspect.getdoc(c) or '').split())} |"
        for c in sorted(classes, key=lambda c: (c in dynamic, c.code))
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text() != page():
            sys.exit("docs/errors.md is not what the code says: run scripts/write_errors_doc.py")
    else:
        PAGE.write_text(page())
