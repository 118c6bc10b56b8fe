"Fixtures: an installed package made of known functions, and one small finished run."
import json, os, shutil, sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# the same examples each time, so that a failure comes with a change; HYPOTHESIS_SEARCH=1 looks for new ones
settings.register_profile('fixed', derandomize=not os.environ.get('HYPOTHESIS_SEARCH'))
settings.load_profile('fixed')

ROOT = Path(__file__).resolve().parents[1]

MODULE = '''
"""A module docstring is not a query."""
def area(width, height):
    """Compute the area of a rectangle. Negative sides raise.

    Parameters are lengths in metres.
    """
    # a comment stays in the passage
    if width < 0 or height < 0:
        raise ValueError(width, height)
    return width * height

class Stack:
    "Class docstrings are not queries."
    def push(self, item):
        """Put an item on top of the stack"""
        self.items.append(item)
        self.count += 1
        return self

    async def drain(self):
        """Remove every item from the stack, oldest last."""
        while self.items:
            self.items.pop()
        self.count = 0

def short(x):
    """This body is too short."""
    return x

def terse(x):
    """Too terse."""
    y = x + 1
    z = y + 1
    return z

def undocumented(x):
    y = x
    z = y
    return z

def outer(f):
    """Wrap a function so that calls are counted."""
    def inner(*args):
        """Call the wrapped function and count the call."""
        inner.calls += 1
        result = f(*args)
        return result
    return inner

def twin_one(values):
    """Return the very same words."""
    total = 0
    for v in values: total += v
    return total

def twin_two(values):
    """Return the very same words!"""
    best = values[0]
    for v in values: best = max(best, v)
    return best

def copy(values):
    """First description of copied code."""
    out = []
    for v in values: out.append(v)
    return out
'''

COPY = '''
def copy(values):
    """Second description of copied code."""
    out = []
    for v in values: out.append(v)
    return out
'''


@pytest.fixture(scope='session')
def demo_package(tmp_path_factory):
    "A distribution called dacl-demo on sys.path, with tests, a vendored copy and a file that does not parse."
    site = tmp_path_factory.mktemp('site')
    files = {
        'dacl_demo/__init__.py': '', 'dacl_demo/shapes.py': MODULE, 'dacl_demo/other.py': COPY,
        'dacl_demo/broken.py': 'def (:\n', 'dacl_demo/latin.py': None,
        'dacl_demo/tests/test_shapes.py': MODULE, 'dacl_demo/_vendor/shapes.py': MODULE,
        'dacl_demo/test_more.py': MODULE}
    for name, text in files.items():
        path = site/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'# \xe9\n') if text is None else path.write_text(text)
    info = site/'dacl_demo-1.0.dist-info'
    info.mkdir()
    (info/'METADATA').write_text('Metadata-Version: 2.1\nName: dacl-demo\nVersion: 1.0\n')
    (info/'RECORD').write_text(
        ''.join(f'{n},,\n' for n in [*files, 'dacl_demo-1.0.dist-info/METADATA', 'dacl_demo-1.0.dist-info/RECORD']))
    sys.path.insert(0, str(site))
    yield 'dacl-demo'
    sys.path.remove(str(site))


@pytest.fixture(scope='session')
def made_once(tmp_path_factory):
    """A function of a name and of what fills a folder and returns what JSON can hold. One worker of pytest-xdist makes
    it, each gets a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
    def get(name, make):
        first, kept = shared/f'first-{name}', shared/f'first-{name}.json'
        with FileLock(f'{kept}.lock'):
            if not kept.exists():
                shutil.rmtree(first, ignore_errors=True) # of a worker that failed
                first.mkdir()
                kept.write_text(json.dumps(make(first)))
        own = tmp_path_factory.mktemp(name) # a worker that comes back to a module gets another copy
        return shutil.copytree(first, own, symlinks=True, dirs_exist_ok=True), json.loads(kept.read_text())
    return get


@pytest.fixture(scope='session')
def tiny_run(made_once):
    "A finished quickstart on about 300 pairs: (data folder, run folder, report, what was said)."
    from dacl_dr.studies.run import quickstart, tiny_settings
    def make(home):
        said = []
        report = quickstart(tiny_settings(), home/'data', home/'run', said.append)
        return str(report.relative_to(home)), said
    home, (report, said) = made_once('tiny', make)
    return home/'data', home/'run', home/report, said
