"""The house rules as plain functions: each takes text or names and returns what it found.

A finding is a sentence for the person who must mend it. `test_rules.py` shows every rule a sample
that breaks it; `test_tree.py` applies the rules to this repository.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PUBLIC_METHODS = 20
ROOMS = ("wallet", "broker", "agents", "api")
VAGUE = frozenset({"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"})

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MACHINE_PATH = re.compile(r"(?<![\w./:~$}-])/(?:home|root|Users|work)/[\w.-]+")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==\S+(?: ; [^\\]+)? \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")

# Joined here so that this file does not hold what it forbids.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"),
    )
)


def long_file(text: str) -> list[str]:
    """Find a file of more than 500 lines."""
    lines = text.count("\n")
    return [f"{lines} lines, limit {MAX_FILE_LINES}"] if lines > MAX_FILE_LINES else []


def long_functions(tree: ast.Module) -> list[str]:
    """Find functions of more than 60 lines, from `def` to the last line."""
    return [
        f"{node.name} (line {node.lineno}) has {lines} lines, limit {MAX_FUNCTION_LINES}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def crowded_classes(tree: ast.Module) -> list[str]:
    """Find classes of more than 20 public methods."""
    findings = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        public = {
            child.name
            for child in node.body
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            and not child.name.startswith("_")
        }
        if len(public) > MAX_PUBLIC_METHODS:
            findings.append(
                f"class {node.name} has {len(public)} public methods, limit {MAX_PUBLIC_METHODS}"
            )
    return findings


def vague_path(path: str) -> list[str]:
    """Find a file or folder whose name says nothing about what is in it."""
    words = {word.lower() for word in _WORDS.findall(path)}
    return [f"'{word}' says nothing: name the noun it is about" for word in sorted(words & VAGUE)]


def vague_classes(tree: ast.Module) -> list[str]:
    """Find classes named after nothing, as FooManager."""
    return [
        f"class {node.name}: '{word}' says nothing"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for word in sorted({word.lower() for word in _WORDS.findall(node.name)} & VAGUE)
    ]


def more_than_reexports(tree: ast.Module) -> list[str]:
    """Find what an `__init__.py` does besides re-exporting (a lazy `__getattr__` is fine)."""
    return [
        f"line {node.lineno}: an __init__ only re-exports"
        for node in tree.body
        if not _is_reexport(node)
    ]


def _is_reexport(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in {"__all__", "__version__", "_LAZY"}
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=[]):
            return all(_is_reexport(child) for child in body)
        case ast.FunctionDef(name="__getattr__" | "__dir__"):
            return True
    return False


def imports_of(tree: ast.Module) -> set[str]:
    """Return every dotted name that a module may import, `from a import b` as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def module_name(path: str) -> str:
    """Return the dotted name of a Python file, as wallet.stores.sqlite."""
    return ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")


def untested(modules: Iterable[str], tests: Mapping[str, AbstractSet[str]]) -> list[str]:
    """Find modules that no test file imports or is named after.

    Args:
        modules: Dotted names of the modules that need a test.
        tests: For each test file's path, the dotted names that it imports.
    """
    imported = set().union(*tests.values()) if tests else set()
    stems = {PurePosixPath(path).stem for path in tests}
    return [
        f"{module}: no test imports it, and there is no test_{module.rpartition('.')[2]}.py"
        for module in modules
        if module not in imported
        and not any(f"test_{name}" in stems for name in _test_names(module))
    ]


def _test_names(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from ("_".join(parts[start:]) for start in range(len(parts)))


def lonely_kernel_files(
    imports: Mapping[str, AbstractSet[str]], for_strangers: AbstractSet[str]
) -> list[str]:
    """Find kernel files that fewer than two rooms need, themselves or through the kernel.

    Args:
        imports: For each module of the project, the dotted names that it imports.
        for_strangers: Kernel modules whose users are outside this repository.
    """
    rooms: dict[str, set[str]] = {name: set() for name in imports if name.startswith("rahba.")}
    queue = [
        (name, importer.partition(".")[0])
        for importer, names in imports.items()
        for name in names
        if importer.partition(".")[0] in ROOMS
    ]
    queue += [
        (name, stranger) for stranger in for_strangers for name in imports.get(stranger, set())
    ]
    while queue:
        name, room = queue.pop()
        if name in rooms and room not in rooms[name]:
            rooms[name].add(room)
            queue += [(deeper, room) for deeper in imports[name]]
    return [
        f"{name} serves {', '.join(sorted(users)) or 'no room'}: the kernel holds what two need"
        for name, users in sorted(rooms.items())
        if len(users) < 2 and name not in for_strangers
    ]


def lock_faults(text: str) -> list[str]:
    """Find lines of a Python lock that are no pin with hashes, above all addresses."""
    findings = []
    hashed = True
    for number, line in enumerate(text.splitlines(), 1):
        if _PIN.fullmatch(line):
            if not hashed:
                findings.append(f"line {number - 1}: a pin without a hash")
            hashed = False
        elif _HASH.fullmatch(line):
            hashed = True
        else:
            findings.append(f"line {number}: neither a pin nor a hash: {line[:60]}")
    return findings


def npm_lock_faults(packages: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Find packages of an npm lock that bear an address or no integrity."""
    findings = []
    for name, entry in packages.items():
        if "resolved" in entry:
            findings.append(f"{name} bears an address")
        if name and "integrity" not in entry:
            findings.append(f"{name} has no integrity hash")
    return findings


def machine_paths(text: str, here: str) -> list[str]:
    """Find absolute paths of somebody's machine, `here` (this checkout) above all."""
    found = {match.group() for match in _MACHINE_PATH.finditer(text)}
    if here in text:
        found.add(here)
    return [f"a path of one machine: {path}" for path in sorted(found)]


def registry_addresses(text: str) -> list[str]:
    """Find package registries named by host: clients know where they are."""
    return [f"names the registry {host}" for host in REGISTRY_HOSTS if host in text]


def import_map_faults(
    import_map: Mapping[str, str], dependencies: AbstractSet[str], locked: AbstractSet[str]
) -> list[str]:
    """Compare a page's import map with the libraries that the lock brings.

    Args:
        import_map: From specifier to address, as the page has it.
        dependencies: Names of the direct dependencies.
        locked: Names of every package that the lock installs for the page.
    """
    findings = []
    mapped = set()
    for specifier, address in import_map.items():
        parts = specifier.rstrip("/").split("/")
        package = "/".join(parts[:2] if specifier.startswith("@") else parts[:1])
        mapped.add(package)
        if package not in locked:
            findings.append(f"{specifier}: the lock has no {package}")
        elif f"/{package}/" not in address:
            findings.append(f"{specifier}: {address} does not lie in {package}")
        if "://" in address or address.startswith("//"):
            findings.append(f"{specifier}: {address} is on another host")
    return findings + [f"{name} is missing in the import map" for name in dependencies - mapped]


def unsorted_modules(
    modules: Iterable[str], pure: AbstractSet[str], impure: AbstractSet[str]
) -> list[str]:
    """Find flat modules of which nobody has said whether they are pure.

    Args:
        modules: Dotted names of the modules that must be one or the other.
        pure: Names and patterns in the contract `pure` of pyproject.toml.
        impure: Names in `tool.rahba.impure` of pyproject.toml.
    """
    findings = []
    for name in modules:
        declared = [name in impure, any(fnmatchcase(name, pattern) for pattern in pure)]
        if not any(declared):
            findings.append(
                f"{name}: add it to the pure modules or to tool.rahba.impure in pyproject.toml"
            )
        if all(declared):
            findings.append(f"{name} cannot be both pure and impure")
    return findings
