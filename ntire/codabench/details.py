"""`detailed_results.html` where there is no report of an entry: what goes on, or everything that is wrong with it."""

from collections.abc import Sequence
from html import escape

from ntire.entry.findings import Finding
from ntire.text import printable

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; vertical-align: top; padding: .3em .8em .3em 0; border-bottom: 1px solid #8886; }}
</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""


def page(title: str, lines: Sequence[str], findings: Sequence[Finding] = ()) -> str:
    """A page with sentences and, below, one row a finding; every text is escaped."""
    body = "".join(f"<p>{escape(printable(line))}</p>\n" for line in lines)
    if findings:
        header = ("code", "problem", "file", "expected", "found", "what to do")
        rows = [[one.code, one.problem, one.file, one.expected, one.found, one.do] for one in findings]
        cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
        body += f"<table><tr>{''.join(f'<th>{name}</th>' for name in header)}</tr>\n{cells}</table>"
    return _PAGE.format(title=escape(title), body=body)


def in_a_line(finding: Finding) -> str:
    """A finding for a log."""
    where = f"{finding.file}: " if finding.file else ""
    return f"{finding.code} {finding.problem}: {where}expected {finding.expected}, found {finding.found}. {finding.do}"
