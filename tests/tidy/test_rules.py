"""Every house rule finds the fault it is there for, and leaves good code alone."""

from __future__ import annotations

import ast

import pytest

from tests.tidy import rules

HASH = "    --hash=sha256:" + "0" * 64


def test_a_file_of_501_lines_is_too_long() -> None:
    assert rules.long_file("x\n" * 500) == []
    assert rules.long_file("x\n" * 501) == ["501 lines, limit 500"]


def test_a_function_of_61_lines_is_too_long_wherever_it_stands() -> None:
    def source(lines: int) -> ast.Module:
        body = "        x = 1\n" * (lines - 1)
        return ast.parse(f"class A:\n    async def f(self):\n{body}")

    assert rules.long_functions(source(60)) == []
    assert rules.long_functions(source(61)) == ["f (line 2) has 61 lines, limit 60"]


def test_a_class_of_21_public_methods_is_crowded_and_private_ones_do_not_count() -> None:
    def source(public: int) -> ast.Module:
        methods = "".join(
            f"    def m{n}(self): ...\n    def _p{n}(self): ...\n" for n in range(public)
        )
        return ast.parse(f"class A:\n{methods}")

    assert rules.crowded_classes(source(20)) == []
    assert rules.crowded_classes(source(21)) == ["class A has 21 public methods, limit 20"]


@pytest.mark.parametrize(
    "path", ["wallet/utils.py", "api/http_helpers.py", "agents/common/x.py", "x/dealManager.js"]
)
def test_a_name_that_says_nothing_is_refused(path: str) -> None:
    assert rules.vague_path(path)


def test_a_noun_of_the_market_is_a_good_name() -> None:
    assert rules.vague_path("wallet/stores/sqlite.py") == []
    assert rules.vague_path("wallet/commons_fund.py") == []


def test_a_class_named_manager_is_refused() -> None:
    assert rules.vague_classes(ast.parse("class DealManager: ..."))
    assert rules.vague_classes(ast.parse("class Deal: ...")) == []


def test_an_init_may_reexport_even_lazily_and_nothing_else() -> None:
    good = (
        '"""Doc."""\nfrom a import b\nfrom typing import TYPE_CHECKING\n__all__ = ["b"]\n'
        "if TYPE_CHECKING:\n    from c import d\ndef __getattr__(name): ...\n"
    )
    assert rules.more_than_reexports(ast.parse(good)) == []
    for bad in ("x = 1", "def f(): ...", "class A: ...", "print('loaded')", "if x:\n    import y"):
        assert rules.more_than_reexports(ast.parse(bad)), bad


def test_a_module_without_any_test_is_found() -> None:
    tests = {
        "tests/unit/test_money.py": {"pytest"},
        "tests/integration/test_stores_sqlite.py": {"pytest"},
        "tests/unit/test_offers.py": rules.imports_of(ast.parse("from wallet import holds")),
    }
    tested = ["rahba.money", "wallet.stores.sqlite", "wallet.holds"]
    assert rules.untested([*tested, "wallet.log"], tests) == [
        "wallet.log: no test imports it, and there is no test_log.py"
    ]
    assert rules.untested(["wallet.log"], {})


def test_a_kernel_file_that_one_room_needs_does_not_belong_in_the_kernel() -> None:
    imports = {
        "rahba.ids": set(),
        "rahba.envelope": {"rahba.ids"},
        "rahba.tax": set(),
        "rahba.client": {"rahba.tax"},
        "wallet.log": {"rahba.envelope", "rahba.tax"},
        "broker.feed": {"rahba.envelope", "broker.ports"},
    }
    findings = rules.lonely_kernel_files(imports, {"rahba.client"})
    assert findings == []
    findings = rules.lonely_kernel_files(imports, set())
    assert findings == [
        "rahba.client serves no room: the kernel holds what two need",
        "rahba.tax serves wallet: the kernel holds what two need",
    ]


def test_a_lock_is_pins_and_hashes_only() -> None:
    good = f"a-b==1.0 \\\n{HASH} \\\n{HASH}\nc==2 ; sys_platform == 'win32' \\\n{HASH}\n"
    assert rules.lock_faults(good) == []
    for bad in (
        "--index-url https://example.org/simple\n",
        "--find-links /wheels\n",
        "# made on a machine in /srv/build\n",
        "a @ https://example.org/a.whl\n",
        "a>=1.0 \\\n" + HASH + "\n",
        "a==1.0\n",
        "a==1.0 \\\nb==1.0 \\\n" + HASH + "\n",
    ):
        assert rules.lock_faults(bad), bad


def test_an_npm_lock_bears_hashes_and_no_addresses() -> None:
    good = {"": {}, "node_modules/lit": {"version": "3.0.0", "integrity": "sha512-x"}}
    assert rules.npm_lock_faults(good) == []
    assert rules.npm_lock_faults({"node_modules/lit": {"resolved": "x"}}) == [
        "node_modules/lit bears an address",
        "node_modules/lit has no integrity hash",
    ]


def test_a_path_of_one_machine_is_found() -> None:
    home = "/" + "home/nour/rahba"
    assert rules.machine_paths(f'DATA = "{home}"', "/srv/rahba") == [
        "a path of one machine: /" + "home/nour"
    ]
    assert rules.machine_paths('DATA = "/srv/rahba/data"', "/srv/rahba")
    assert rules.machine_paths("see https://example.org/home/x and src/work/y", "/srv/r") == []


def test_a_registry_named_by_its_host_is_found() -> None:
    assert rules.registry_addresses(f"pip install -i https://{rules.REGISTRY_HOSTS[0]}/simple")
    assert rules.registry_addresses("pip install rahba") == []


def test_an_import_map_names_what_the_lock_brings() -> None:
    locked = {"lit", "@preact/signals-core"}
    good = {"lit": "/lib/lit/index.js", "@preact/signals-core": "/lib/@preact/signals-core/x.js"}
    assert rules.import_map_faults(good, locked, locked) == []
    assert rules.import_map_faults({**good, "vue": "/lib/vue/x.js"}, locked, locked)
    assert rules.import_map_faults({**good, "lit": "/lib/other.js"}, locked, locked)
    assert rules.import_map_faults({**good, "lit": "https://cdn/lit/x.js"}, locked, locked)
    assert rules.import_map_faults({"lit": "/lib/lit/index.js"}, locked, locked)


def test_a_flat_module_is_declared_pure_or_impure_and_never_both() -> None:
    assert rules.unsorted_modules(["wallet.holds"], {"wallet.holds"}, set()) == []
    assert rules.unsorted_modules(["agents.strategies.timed"], {"agents.strategies.*"}, set()) == []
    assert rules.unsorted_modules(["wallet.holds"], set(), {"wallet.holds"}) == []
    assert rules.unsorted_modules(["wallet.holds"], set(), set())
    assert rules.unsorted_modules(["wallet.holds"], {"wallet.holds"}, {"wallet.holds"})
