"""Makes the pages that are made from the code: `./dev docs`. With `--check`, only says which are not current.

docs/states.md      boot stages, phases of connections, what follows from a death: from the tables that decide them
docs/commands.md    every command of every protocol, and of the command line
docs/rules.md       every rule that a verdict can name
docs/coverage.md    which rule of which specification is enforced where, and where we deviate
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from endocarp.box.plan import KINDS
from endocarp.cli.main import endocarp
from endocarp.hsm import mechanisms, phases, token
from endocarp.rot import rom, runtime
from endocarp.rot.boot import BOOT
from endocarp.rot.dispatch import Registry
from endocarp.verifier import rules
from endocarp.wire import custody, dpe, hsm, mailbox
from endocarp.wire.codec import Struct
from endocarp.wire.cryptoki import CKM

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/endocarp"
MADE = "Made by `./dev docs` from the code; changes belong there.\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [[*head], ["---" for _ in head], *([*row] for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def sentence(member: object) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(member) or "").partition("\n")[0]


def code(text: object) -> str:
    """Return text as code."""
    return f"`{text}`"


# --- states ---------------------------------------------------------------------------------------------------


def states() -> str:
    """Return the page of states and permits."""
    return "\n".join(
        (
            "# States\n",
            MADE,
            "## Boot of the root of trust\n",
            "`rot/boot.py` holds this table; nothing else assigns a stage.\n",
            _boot(),
            "## A connection to a vault\n",
            "`hsm/phases.py`: which operations each phase permits.\n",
            table(
                ["operation", *(phase.name.lower() for phase in phases.Phase)],
                (
                    [
                        code(operation.name),
                        *("yes" if operation in phases.PERMITS[phase] else "" for phase in phases.Phase),
                    ]
                    for operation in hsm.Operation
                ),
            ),
            "## A connection to the p11-kit door\n",
            "`hsm/token.py`: what moves a connection on, and what it may ask meanwhile.\n",
            _token(),
            "## When a process dies\n",
            "`box/plan.py`. If the box itself dies, all others end with their channels.\n",
            table(["process", "remedy"], ([code(name), kind.on_death.value] for name, kind in KINDS.items())),
        )
    )


def _boot() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> RESET"]
    for stage, ways in BOOT.items():
        lines += [f"    {stage.name} --> {target.name}: {event.value}" for event, target in ways.items()]
    return "\n".join((*lines, "```\n"))


def _token() -> str:
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> NEW",
    ]
    lines += [
        f"    {phase.name} --> {target.name}: {call.name}"
        for call, target in token.NEXT.items()
        for phase, permitted in token.PERMITS.items()
        if call in permitted
    ]
    calls = (
        [phase.name, ", ".join(code(call.name) for call in sorted(permitted)) or "none"]
        for phase, permitted in token.PERMITS.items()
    )
    return "\n".join((*lines, "```\n", table(["phase", "calls"], calls)))


# --- commands -------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return the page of commands."""
    return "\n".join(
        (
            "# Commands\n",
            MADE,
            "## Command line\n",
            table(["command", "what it does"], _command_line("endocarp", endocarp)),
            "## Mailbox of the root of trust\n",
            "PL0 is the channel that the box inherited, PL1 everybody else.\n",
            table(["command", "code", "asks", "at", "from"], _mailbox()),
            "## DPE\n",
            table(
                ["profile", "command", "code", "asks"],
                (
                    [profile.name, code(request.__name__), code(f"{number:#x}"), sentence(request)]
                    for profile, requests in dpe.COMMANDS.items()
                    for number, request in requests.items()
                ),
            ),
            "## Custody channel\n",
            table(["operation", "asks"], _operations(custody.REQUESTS)),
            "## Native door\n",
            table(["operation", "asks"], _operations(hsm.REQUESTS)),
            "## PKCS#11 door\n",
            f"{len(token.CALLS)} calls are carried out, see [States](states.md); all others are parsed and refused.\n",
            table(
                ["mechanism", "sizes", "for"],
                (
                    [
                        code(f"CKM_{CKM(number).name}"),
                        f"{info.smallest} to {info.largest}" if info.largest else "",
                        ", ".join(flag.name or "" for flag in info.flags),
                    ]
                    for number, info in mechanisms.MECHANISMS.items()
                ),
            ),
        )
    )


def _command_line(name: str, command: Any) -> Iterator[list[str]]:
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    if not inner:
        yield [code(name), (command.help or "").partition("\n")[0]]
    for word, child in inner.items():
        yield from _command_line(f"{name} {word}", child)


def _registered(module: ModuleType) -> set[int]:
    registries = [member for member in vars(module).values() if isinstance(member, Registry)]
    return {command for registry in registries for command in registry.handlers}


def _mailbox() -> Iterator[list[str]]:
    stages = {"ROM": _registered(rom), "runtime": _registered(runtime)}
    for number, request in sorted(mailbox.REQUESTS.items(), key=lambda item: item[1].COMMAND.name):
        places = [name for name, known in stages.items() if number in known]
        level = runtime.PERMITS.get(request.COMMAND)
        yield [
            code(request.COMMAND.name),
            code(f"{number:#010x}"),
            sentence(request),
            ", ".join(places),
            "PL0" if level is not None or places == ["ROM"] else "PL0, PL1",
        ]


def _operations(requests: Mapping[Any, type[Struct]]) -> Iterator[list[str]]:
    for number, request in requests.items():
        yield [code(f"{request.__name__} ({int(number)})"), sentence(request)]


# --- rules of the verifier -------------------------------------------------------------------------------------


def verdicts() -> str:
    """Return the page of rules."""
    parts = ["# Rules of a verdict\n", MADE]
    parts.append("A rule with a star holds only against a reference, which the verdict then names.\n")
    for section, title in rules.SECTIONS.items():
        found = {name: rule for name, rule in rules.RULES.items() if name.partition(".")[0] == section}
        parts.append(f"## {title}\n")
        parts.append(
            table(
                ["rule", "what must hold"],
                (
                    [code(name), rule.sentence + (" *" if rule.compared else "")]
                    for name, rule in found.items()
                ),
            )
        )
    return "\n".join(parts)


# --- specifications ---------------------------------------------------------------------------------------------


class Remark(NamedTuple):
    """A comment of one or more lines, and the function or class that it stands in."""

    module: str
    owner: str
    text: str

    @property
    def place(self) -> str:
        """The module and what is inside it, as code."""
        return code(f"{self.module}.{self.owner}" if self.owner else self.module)


_CITED = re.compile(
    r"((?:Caliptra|TCG|DPE|DICE|RFC \d|FIPS \d|SP 800|X\.6|PKCS#|p11-kit|DSP0|PCIe|OCP|CVE-)[^:]{0,80}): (.+)"
)
_DEVIATION = re.compile(r"deviation: (.+)")
_SOURCE = re.compile(r"Sources?: (.+?)\.?(?:\n\n|\Z)", re.DOTALL)


def remarks() -> Iterator[Remark]:
    """Return every comment of the source, neighbouring lines as one."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        source = path.read_text()
        owners = _owners(ast.parse(source))
        for line, text in comments(source):
            yield Remark(module, owners.get(line, ""), text)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield each comment and its first line; a comment that cites, deviates or stands behind code begins anew."""
    found: dict[int, str] = {}
    last = -1
    for piece in tokenize.generate_tokens(io.StringIO(source).readline):
        if piece.type != tokenize.COMMENT:
            continue
        line, text = piece.start[0], piece.string.lstrip("# ").rstrip()
        begins = _CITED.match(text) or _DEVIATION.match(text) or piece.line.strip() != piece.string.strip()
        if line == last + 1 and not begins:
            first = max(found)
            found[first] = f"{found[first]} {text}"
        else:
            found[line] = text
        last = line
    yield from found.items()


def _owners(tree: ast.Module) -> dict[int, str]:
    """Return the innermost function or class of each line, by its dotted name."""
    owners: dict[int, str] = {}

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}".lstrip(".")
                owners.update(
                    dict.fromkeys(range(child.lineno, (child.end_lineno or child.lineno) + 1), inner)
                )
                walk(child, inner)
            else:
                walk(child, name)

    walk(tree, "")
    return owners


def _sources() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        found = _SOURCE.search(doc)
        if found:
            yield ".".join(path.relative_to(SOURCE).with_suffix("").parts), " ".join(found[1].split())


def coverage() -> str:
    """Return the page of specifications."""
    cited, deviations = [], []
    for remark in remarks():
        rule, deviation = _CITED.match(remark.text), _DEVIATION.match(remark.text)
        if rule:
            cited.append((rule[1], rule[2], remark.place))
        if deviation:
            deviations.append((deviation[1], remark.place))
    return "\n".join(
        (
            "# Specifications\n",
            MADE,
            "## Modules that follow one source\n",
            table(["module", "source"], ([code(module), source] for module, source in _sources())),
            "## Rules and where they are enforced\n",
            "Collected from the comments above the checks. Each module has a test file of its own name.\n",
            table(["specification", "rule", "enforced in"], sorted(cited)),
            "## Where we deviate\n",
            table(["how", "in"], deviations),
        )
    )


# --- pages ----------------------------------------------------------------------------------------------------

PAGES: Mapping[str, Callable[[], str]] = {
    "states.md": states,
    "commands.md": commands,
    "rules.md": verdicts,
    "coverage.md": coverage,
}


def stale() -> list[str]:
    """Return the names of the pages that are not what the code would make."""
    return [
        name
        for name, make in PAGES.items()
        if not (ROOT / "docs" / name).is_file() or (ROOT / "docs" / name).read_text() != make()
    ]


def main(arguments: list[str]) -> int:
    """Make all pages, or with `--check` only look at them; return 1 where one was not current."""
    old = stale()
    for name in old:
        if "--check" in arguments:
            print(f"docs/{name} is not current: ./dev docs")
        else:
            (ROOT / "docs" / name).write_text(PAGES[name]())
            print(f"docs/{name} made again")
    return 1 if old and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
