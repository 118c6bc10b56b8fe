"""Clean installations, and circumstances that an installed program has to stand.

    python benchmarks/installs.py --pythons .../3.11/bin/python .../3.12/bin/python --pins torch==2.13.0 \\
        --bare .../3.12/bin/python --table nbs/experiments/results/installs.csv

Wheel and source archive are built from a clone of this checkout, as last committed. The wheel is installed into an
empty environment of each Python, outside of the checkout. The first Python then gets, in the same environment with
--no-deps --force-reinstall, the source archive and git+file of the clone, which stands for git+https; and the wheel
again, with which the circumstances are tried: users who do not own the environment, no home folder, no network, a path
with spaces and other letters than ASCII, locales; at last, in an environment of its own, the oldest dependencies that
settings.ini allows. --pins hold for all, and name what may be newer than its lower bound there.

Other users cannot run an interpreter that lies in a home folder: --shared names one that they can, which gets an
environment of its own.

A Python of --bare gets no torch, where that would bring gigabytes of CUDA: the versions that the first Python chose are
installed without it, and there is no quickstart.

Each trial runs in a folder of its own: `import dacl_dr` and `dacl --help`, seconds of a processor, medians of five, and
a quickstart on about 300 pairs whose page has to be there. A file that it leaves in the environment is a failure,
except for what Python and numba compile. Circumstances that need root, a network namespace or a locale's source are
left out where there is none, which is told. What is told besides: versions, and files that were compiled. Environments
stay in --work and are used again, where only the project itself is installed anew; rows of the table that are not tried
again (--only) stay too.

Columns: python, from (wheel, sdist, git, or wheel with the oldest dependencies), where (the circumstance), install and
quickstart ('works', or the last line of the error), import s, --help s.
"""
import argparse, configparser, os, re, shutil, subprocess, sys, time
from datetime import date
from pathlib import Path
from statistics import median

import pandas as pd, yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dacl_dr.core.files import atomic_file

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ['python', 'from', 'where', 'install', 'quickstart', 'import s', '--help s', 'date']
NOBODY, NAMELESS = 65534, 54321 # users of most systems, and of none
TOLD = ['torch', 'transformers', 'numpy', 'faiss-cpu', 'pandas']
SMALL = {
    'corpus': {'packages': ['traitlets', 'nbformat', 'joblib']}, 'encoder': {'vocab_size': 2000, 'dim': 64},
    'training': {'batch_size': 64, 'num_epochs': 2}, 'search': {'m': 8, 'ef_construction': 40}, 'recipes': ['A', 'B'],
}


def requirements():
    "What settings.ini requires."
    settings = configparser.ConfigParser(delimiters=['='], interpolation=None)
    settings.read(ROOT/'settings.ini', encoding='utf-8')
    return [Requirement(text) for text in settings['DEFAULT']['requirements'].split()]


def lower_bound(requirement):
    "The oldest version that a requirement allows."
    return next(s.version for s in requirement.specifier if s.operator == '>=')


def last_line(done, *folders):
    "The last line that a failed process said, without folders of this machine."
    said = [line for line in (done.stderr or done.stdout).splitlines() if line and not line[0].isspace()]
    text = said[-1].strip() if said else f'ended with {done.returncode}'
    for folder in folders: text = text.replace(str(folder), '...')
    return text


def run(*command, **options):
    "A process, its words captured as UTF-8 as far as they are; the checkout is not on its path."
    own = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    options = {'timeout': 3000, 'encoding': 'utf-8', 'errors': 'replace', 'env': own} | options
    return subprocess.run([*map(str, command)], capture_output=True, **options)


def called(*command, **options):
    "As `run`, and has to work."
    done = run(*command, **options)
    if done.returncode: sys.exit(f'{command}: {done.stderr or done.stdout}')
    return done.stdout.strip()


class Venv:
    "An environment of a Python, outside of any checkout, made once."
    def __init__(self, python, folder):
        self.folder, self.bin = folder, folder/'bin'
        if not self.bin.exists(): called(python, '-m', 'venv', folder)
        self.version = called(self.bin/'python', '-c', 'import platform; print(platform.python_version())')
        self.site = folder/'lib'/f"python{self.version.rpartition('.')[0]}"/'site-packages'

    def pip(self, *words): return run(self.bin/'python', '-m', 'pip', *words, cwd=self.folder)

    def install(self, *words, check=True):
        "'works', or why not."
        self.pip('uninstall', '-y', 'dacl-dr') # of an earlier run
        return self.failed('install', *words) or (self.failed('check') if check else '') or 'works'

    def failed(self, *words):
        done = self.pip(*words)
        return last_line(done, self.folder.parent) if done.returncode else ''

    def freeze(self): return self.pip('freeze', '--exclude', 'dacl-dr').stdout.split('\n')

    def files(self):
        "File → when it was changed, but for what was compiled; and how many were compiled."
        found = {p: p.stat().st_mtime_ns for p in self.folder.rglob('*') if p.is_file()}
        compiled = {p for p in found if p.parent.name == '__pycache__' and p.suffix in ('.pyc', '.nbi', '.nbc')}
        return {p: t for p, t in found.items() if p not in compiled}, len(compiled)


class Circumstance:
    "Where a program is run: words before its own, variables of the environment (None: not set), whose folder it is."
    def __init__(self, where, *prefix, user=None, missing='', **variables):
        self.where, self.prefix, self.user, self.missing, self.variables = where, prefix, user, missing, variables
        if user is not None:
            self.prefix = ('setpriv', f'--reuid={user}', f'--regid={user}', '--clear-groups', *prefix)
            if os.getuid(): self.missing = 'not root'

    def environ(self, venv, home):
        mine = {'PATH': f"{venv.bin}{os.pathsep}{os.environ['PATH']}", 'HOME': str(home), 'LANG': 'C.UTF-8',
                'TMPDIR': str(home.parents[2]/'tmp')}
        return {k: v for k, v in (mine | self.variables).items() if v is not None}


def german(folder):
    "A folder with the locale de_DE.UTF-8; None where it cannot be made."
    if not shutil.which('localedef'): return None
    folder.mkdir(exist_ok=True)
    run('localedef', '-i', 'de_DE', '-f', 'UTF-8', folder/'de_DE.UTF-8')
    return folder if (folder/'de_DE.UTF-8'/'LC_CTYPE').exists() else None


def circumstances(work):
    "All but the path, which is the environment's."
    locales, alone = german(work/'locales'), ['unshare', '-n', 'sh', '-c', 'ip link set lo up; exec "$@"', 'sh']
    ascii_only = {'LANG': None, 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    no_german = '' if locales else 'no such locale'
    no_net = '' if run(*alone, 'true').returncode == 0 else 'no network namespace'
    return [
        Circumstance('plain user, environment of root', user=NOBODY),
        Circumstance('plain user, no HOME', user=NOBODY, HOME=None),
        Circumstance('plain user, HOME is not there', user=NOBODY, HOME='/nonexistent/home'),
        Circumstance('plain user, HOME is another\'s', user=NOBODY, HOME=str(work/'locked')),
        Circumstance('plain user, HOME lies in another\'s', user=NOBODY, HOME=str(work/'locked'/'home')),
        Circumstance('user without a name, no HOME', user=NAMELESS, HOME=None),
        Circumstance('no HOME', HOME=None),
        Circumstance('HOME is not there', HOME=str(work/'no'/'home')),
        Circumstance('offline', *alone, missing=no_net),
        Circumstance('LC_ALL=C, PYTHONUTF8=0', LC_ALL='C', **ascii_only),
        Circumstance('LANG=C', LANG='C'),
        Circumstance('LANG=de_DE.UTF-8', LANG='de_DE.UTF-8', LOCPATH=str(locales), missing=no_german),
    ]


def seconds(command, **options):
    "Median of five: seconds of a processor, which other work on the machine does not prolong."
    times = []
    for _ in range(5):
        before = os.times()
        done = run(*command, **options)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        if done.returncode: return float('nan')
    return median(times)


def worked(folder, words, venv, circumstance, **options):
    "'works', or what a command said; it ends with 0, its page is there, and its environment is as it was."
    before, compiled = venv.files()
    done = run(*circumstance.prefix, venv.bin/'dacl', *words, **options)
    after, compiled_now = venv.files()
    changed = [p for p in after if before.get(p) != after[p]]
    print(f'  {done.stderr.strip()}\n  compiled in the environment: {compiled_now - compiled}', flush=True)
    if done.returncode: return last_line(done, folder, venv.folder)
    if not any((folder/'run').rglob('*.html')): return 'no page'
    return f'writes {changed[0].relative_to(venv.folder)}' if changed else 'works'


def trial(venv, circumstance, work, bare=False):
    "What is tried of an installed environment, as three columns."
    folder = work/'runs'/re.sub(r'[^\w]+', '-', f'{venv.version} {time.time_ns()}')
    if not venv.folder.name.isascii(): folder = folder.with_name(f'läufe и {folder.name}')
    home = folder/'home'
    home.mkdir(parents=True)
    (folder/'small.yaml').write_text(yaml.safe_dump(SMALL))
    if circumstance.user is not None:
        for path in (folder, *folder.rglob('*')): os.chown(path, circumstance.user, circumstance.user)
    options = {'cwd': folder, 'env': circumstance.environ(venv, home)}
    words = ['quickstart', '--config', 'small.yaml', '--data_dir', 'data', '--output', 'run']
    said = 'not tried: no torch here' if bare else worked(folder, words, venv, circumstance, **options)
    times = [seconds([*circumstance.prefix, *command], **options) for command in (
        [venv.bin/'python', '-c', 'import dacl_dr'], [venv.bin/'dacl', '--help'])]
    shutil.rmtree(folder)
    return [said, *times]


class Table:
    "Rows, told and kept as they come, in place of those of the same trial."
    def __init__(self, path):
        self.path = path and Path(path)
        known = self.path and self.path.exists() and set(COLUMNS) <= set(pd.read_csv(self.path))
        self.rows = pd.read_csv(self.path).to_dict('records') if known else []

    def add(self, *values):
        row, key = dict(zip(COLUMNS, [*values, date.today().isoformat()])), values[:3]
        print(*values, sep=' | ', flush=True)
        at = [i for i, r in enumerate(self.rows) if tuple(r[c] for c in COLUMNS[:3]) == key]
        if at: self.rows[at[0]] = row
        else: self.rows.append(row)
        if not self.path: return
        with atomic_file(self.path) as tmp:
            pd.DataFrame(self.rows, columns=COLUMNS).to_csv(tmp, index=False, float_format='%.2f')


def built(work):
    "A clone of what is committed, its wheel and its source archive."
    clone, files = work/'clone', work/'dist'
    for old in (clone, files): shutil.rmtree(old, ignore_errors=True)
    called('git', 'clone', '-q', ROOT, clone)
    called(sys.executable, '-m', 'build', '--outdir', files, clone)
    return clone, next(files.glob('*.whl')), next(files.glob('*.tar.gz'))


def elsewhere(venv, python, folder, wheel):
    "An environment at another path: the same packages, linked, and the wheel installed there."
    shutil.rmtree(folder, ignore_errors=True)
    other = Venv(python, folder)
    shutil.rmtree(other.site)
    for old, new in ((venv.site, other.site), (venv.folder/'share', folder/'share'), (venv.folder/'etc', folder/'etc')):
        if old.exists(): shutil.copytree(old, new, copy_function=os.link, symlinks=True)
    return other, other.install('--no-deps', '--force-reinstall', wheel)


def oldest(pins):
    "Pins of the lower bounds, but for packages that have a pin already."
    held = {canonicalize_name(p.split('==')[0]) for p in pins}
    rest = [r for r in requirements() if canonicalize_name(r.name) not in held]
    return [*pins, *(f'{r.name}=={lower_bound(r)}' for r in rest)]


class Trials:
    "What was asked for, tried one after another."
    def __init__(self, a):
        self.a, self.work, self.table = a, a.work.resolve(), Table(a.table)
        self.work.mkdir(parents=True, exist_ok=True)
        for name, mode in (('locked', 0o700), ('tmp', 0o1777)):
            (self.work/name).mkdir(exist_ok=True)
            (self.work/name).chmod(mode)
        self.clone, self.wheel, self.sdist = built(self.work)
        self.usual = Circumstance('a folder of its own')

    def wants(self, origin, where):
        "Is a trial among those asked for?"
        return not self.a.only or any(words in f'{origin}, {where}' for words in self.a.only)

    def tried(self, venv, origin, circumstance, installed, bare=False):
        "One row."
        missing = circumstance.missing
        if not missing and run(*circumstance.prefix, venv.bin/'python', '-c', '').returncode:
            missing = 'they cannot run this Python'
        if missing: return print('not tried:', circumstance.where, missing, flush=True)
        row = trial(venv, circumstance, self.work, bare) if installed == 'works' else ['', None, None]
        self.table.add(venv.version, origin, circumstance.where, installed, *row)

    def fresh(self, python, folder):
        "The wheel in an environment of this Python, and that environment."
        venv = Venv(python, self.work/folder)
        if python in self.a.bare:
            frozen = [x for x in Venv(self.a.pythons[0], self.work/'first').freeze() if not x.startswith('torch==')]
            (self.work/'bare.txt').write_text('\n'.join(frozen))
            installed = venv.install('--no-deps', '-r', self.work/'bare.txt', self.wheel, check=False)
        else: installed = venv.install(*self.a.pins, self.wheel)
        print(venv.version, *(x for x in venv.freeze() if x.split('==')[0] in TOLD), flush=True)
        return venv, installed

    def pythons(self):
        for i, python in enumerate(self.a.pythons):
            folder = Path(python).resolve().parents[1].name if i else 'first'
            if not self.wants('wheel', f'{self.usual.where}, {folder}'): continue
            venv, installed = self.fresh(python, folder)
            self.tried(venv, 'wheel', self.usual, installed, python in self.a.bare)

    def origins(self):
        for name, source in (('sdist', self.sdist), ('git', f'git+file://{self.clone}')):
            if not self.wants(name, self.usual.where): continue
            venv = Venv(self.a.pythons[0], self.work/'first')
            self.tried(venv, name, self.usual, venv.install('--no-deps', '--force-reinstall', source))

    def circumstances(self):
        wanted = [c for c in circumstances(self.work) if self.wants('wheel', c.where)]
        for of_users in (False, True):
            these = [c for c in wanted if (c.user is not None) == of_users]
            if not these: continue
            shared = of_users and self.a.shared
            venv, installed = self.fresh(self.a.shared, 'shared') if shared else self.fresh(self.a.pythons[0], 'first')
            for c in these: self.tried(venv, 'wheel', c, installed)

    def path(self):
        where = Circumstance('path with spaces and ü, и, 文')
        if not self.wants('wheel', where.where): return
        venv, installed = self.fresh(self.a.pythons[0], 'first')
        venv, installed = elsewhere(venv, self.a.pythons[0], self.work/'ein Ordner für été и 文', self.wheel)
        self.tried(venv, 'wheel', where, installed)

    def oldest(self):
        origin = 'wheel, oldest dependencies'
        if not self.wants(origin, self.usual.where): return
        venv = Venv(self.a.pythons[0], self.work/'oldest')
        installed = venv.install(*oldest(self.a.pins), self.wheel)
        self.tried(venv, origin, self.usual, installed)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--pythons', nargs='+', required=True, help='interpreters; all is tried with the first')
    p.add_argument('--bare', nargs='*', default=[], help='those of them that get no torch')
    p.add_argument('--shared', help='an interpreter that all users can run')
    p.add_argument('--pins', nargs='*', default=[], help='versions to hold to, such as torch==2.13.0')
    p.add_argument('--work', type=Path, default='build/installs', help='a folder that all users can read')
    p.add_argument('--only', nargs='+', help='trials whose origin or circumstance has one of these words')
    p.add_argument('--table', help='CSV to write')
    a = p.parse_args()
    trials = Trials(a)
    for of in (trials.pythons, trials.origins, trials.circumstances, trials.path, trials.oldest): of()


if __name__ == '__main__': main()
