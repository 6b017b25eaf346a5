"""A verdict as a tree of reasons, for people."""

import re
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from endocarp.verifier.verdict import Finding, Outcome, Section, Verdict
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
_DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{24,}\b")
_ALWAYS_SHOWN = frozenset({"nonce", "image"})
"""Sections whose findings are shown even where all of them held: they name what the verdict rests on."""


def tree(verdict: Verdict, *, show_all: bool) -> RenderableType:
    """Return what to print: the verdict, its reasons, and what is enforced, modelled, reported and absent."""
    word, style = ("VERIFIED", "bold green") if verdict.accepted else ("REFUSED", "bold red")
    root = Tree(Text(word, style))
    for name, value in verdict.context.items():
        root.add(Text.assemble((f"{name}: ", "dim"), value))
    for section in verdict.sections:
        _add_section(root, section, show_all=show_all)
    return Group(root, "", *_statements(verdict))


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
    text.append(f": {_shortened(finding.reason)}")
    if finding.reference:
        text.append(f"  = {finding.reference}", "dim")
    return text


def _statements(verdict: Verdict) -> Iterator[RenderableType]:
    yield Text("What protects this server, and how far", style="bold")
    for status, style in _STATUS_STYLES.items():
        for one in verdict.statements:
            if one.status is status:
                mechanism = "" if one.mechanism == "none" else f", {one.mechanism}"
                text = Text.assemble((f"{status.name.lower():<9} ", style), f"{one.subject}{mechanism}: ")
                yield text.append(f"{one.detail} ", "dim").append(f"({one.by})", "dim italic")


def _shortened(text: str) -> str:
    """Return text with its digests cut to what an eye compares; `--json` has them whole."""
    return _DIGEST.sub(lambda found: f"{found[1]}…", text)
