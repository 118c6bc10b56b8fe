"""The list of wrong lines fits the code: each stands once in one module of its topic. Whether tests notice them: make
mutants."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def topics():
    "Name, modules, mutants and checks of each topic, read without importing what the campaign needs."
    tree = ast.parse((ROOT/'tests'/'mutants.py').read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == 'Topic']
    for call in calls:
        modules, checks, mutants = call.args
        words = [tuple(ast.literal_eval(a) for a in m.args) for m in mutants.elts]
        yield ast.literal_eval(modules), ast.literal_eval(checks), words


TOPICS = list(topics())


@pytest.mark.parametrize('modules, checks, mutants', TOPICS, ids=lambda x: x[0] if isinstance(x[0], str) else '')
def test_every_wrong_line_replaces_one_line(modules, checks, mutants):
    texts = {m: (ROOT/'dacl_dr'/f"{m.replace('.', '/')}.py").read_text() for m in modules}
    for words, was, now in mutants:
        counts = {m: text.count(was) for m, text in texts.items() if was in text}
        assert list(counts.values()) == [1], f'{words}: {counts}'
        module = next(iter(counts))
        ast.parse(texts[module].replace(was, now))


def test_the_checks_exist():
    assert len(TOPICS) > 15
    for _, checks, _ in TOPICS:
        for check in checks:
            file = check.split()[0]
            path = ROOT/'tests'/file if file.endswith('.py') else ROOT/'nbs'/f'{file}.ipynb'
            assert path.is_file(), check
