"""A verdict as a tree of reasons, for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from endocarp.cli.screen import shortened
from endocarp.errors import VerificationError
from endocarp.verifier.verdict import Claim, Finding, Outcome, Section, Verdict
from endocarp.wire.evidence import Status

_MARKS = {
    Outcome.HELD: ("✓", "green"),
    Outcome.FAILED: ("✗", "bold red"),
    Outcome.TOLD: ("·", "cyan"),
    Outcome.UNREACHED: ("?", "yellow"),
}
_STATUS_STYLES = {
    Status.ENFORCED: "green",
    Status.MODELLED: "yellow",
    Status.REPORTED: "cyan",
    Status.ABSENT: "red",
}
_TITLE = "What protects this server, and how far"
_NAMED = 3
"""How many broken rules the last line names."""
_ALWAYS_SHOWN = frozenset({"nonce", "image"})
"""Sections whose findings are shown even where all of them held: they name what the verdict rests on."""


def tree(verdict: Verdict, *, show_all: bool) -> RenderableType:
    """Return what to print: the verdict with its reasons, what protects the server, and the verdict again."""
    word, style = ("VERIFIED", "bold green") if verdict.accepted else ("REFUSED", "bold red")
    root = Tree(Text(word, style))
    for name, value in verdict.context.items():
        root.add(Text.assemble((f"{name}: ", "dim"), value))
    for section in verdict.sections:
        _add_section(root, section, show_all=show_all)
    end = Text.assemble((word, style), f": {_summary(verdict)}")
    return Group(root, "", Text(_TITLE, style="bold"), _statements(verdict), "", end)


def _add_section(root: Tree, section: Section, *, show_all: bool) -> None:
    held = sum(one.outcome is Outcome.HELD for one in section.findings)
    asked = sum(one.outcome is not Outcome.TOLD for one in section.findings)
    mark, style = _MARKS[Outcome.HELD if section.held else Outcome.FAILED]
    branch = root.add(
        Text.assemble((f"{mark} ", style), (section.title, "bold"), f"  {held} of {asked} rules held")
    )
    for finding in section.findings:
        quiet = finding.outcome is Outcome.HELD and section.name not in _ALWAYS_SHOWN
        if show_all or not quiet:
            branch.add(_finding(finding))


def _finding(finding: Finding) -> Text:
    mark, style = _MARKS[finding.outcome]
    text = Text.assemble((f"{mark} ", style), (finding.rule, "bold" if style != "green" else ""))
    if finding.subject:
        text.append(f" {finding.subject}")
    text.append(f": {shortened(finding.reason)}")
    if finding.reference:
        text.append(f"  = {finding.reference}", "dim")
    return text


def _statements(verdict: Verdict) -> Table:
    table = Table.grid(padding=(0, 1))
    for status, style in _STATUS_STYLES.items():
        for subjects, one in _gathered(verdict, status):
            mechanism = "" if one.mechanism == "none" else f"{one.mechanism}: "
            text = Text.assemble((f"{subjects}: ", "bold"), mechanism, (f"{one.detail} ", "dim"))
            table.add_row(Text(status.name.lower(), style), text.append(f"({one.by})", "dim italic"))
    return table


def _gathered(verdict: Verdict, status: Status) -> Iterator[tuple[str, Claim]]:
    """Yield the statements of a status; one that is made of several subjects comes once, with all of them."""
    gathered: dict[tuple[str, str, str], list[Claim]] = {}
    for one in verdict.statements:
        if one.status is status:
            gathered.setdefault((one.mechanism, one.detail, one.by), []).append(one)
    for same in gathered.values():
        yield ", ".join(one.subject for one in same), same[0]


def _summary(verdict: Verdict) -> str:
    asked = sum(one.outcome is not Outcome.TOLD for one in verdict.findings)
    if verdict.accepted:
        return f"all {asked} rules held"
    rules = list(dict.fromkeys(one.rule for one in verdict.failures))
    more = "" if len(rules) <= _NAMED else f" and {len(rules) - _NAMED} more"
    return f"{', '.join(rules[:_NAMED])}{more}\nadvice: {VerificationError.hint}"
