"""Do the tests notice? Each mutant is one wrong line in a copy of the package, and a pytest file or the module's notebook has to fail.

    python tests/mutants.py [--only MODULE ...]

Run it with `make mutants`. It writes nbs/experiments/results/mutants.csv when all modules were run, and exits with 1 if a mutant survives.
"""
import argparse, csv, json, multiprocessing, os, re, shlex, shutil, sys, tempfile, time
from pathlib import Path
from typing import NamedTuple

# what dacl_dr, pytest and the notebooks import is loaded once, and then forked for each check
import altair, bm25s, execnb.shell, faiss, hypothesis, hypothesis.extra, ir_measures, IPython.paths, nbdev.config, nbdev.test, numba, pandas, pyarrow.ipc, pytest, rank_bm25, regex, safetensors.torch, scipy.optimize, scipy.stats, sentence_transformers, sklearn.metrics, tokenizers, torch, transformers

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT/'nbs/experiments/results/mutants.csv'
COPIED = ('dacl_dr', 'tests', 'nbs', 'settings.ini', 'pyproject.toml', 'README.md') # into the folder where mutants live
LONGEST = 400 # seconds of a check; a mutant that hangs is noticed


class Mutant(NamedTuple):
    words: str
    was: str # stands once in the module, and once in the exported cells of its notebook
    now: str


# module → its checks, cheapest first, and its mutants. A check is a notebook's name or the arguments of pytest.
MUTANTS = {
    'losses': (('test_losses.py', '15_losses'), [
        Mutant('similarities are multiplied by the temperature', 'full(q) @ full(d).T / temperature', 'full(q) @ full(d).T * temperature'),
        Mutant('half precision stays half', 'return x.to(torch.promote_types(x.dtype, torch.float32))', 'return x'),
        Mutant('autocast stays on', 'torch.autocast(x.device.type, enabled=False)', "torch.autocast(x.device.type, enabled=torch.is_autocast_enabled('cpu'))"),
        Mutant('the mask of false negatives is ignored', 'return logits if mask is None else', 'return logits if True else'),
        Mutant('masked passages are logits of 0', 'logits.masked_fill(mask, torch.finfo(logits.dtype).min)', 'logits.masked_fill(mask, 0)'),
        Mutant('the sum over queries instead of the mean', 'loss = F.cross_entropy(logits, target)', "loss = F.cross_entropy(logits, target, reduction='sum')"),
        Mutant('the symmetric loss is not halved', '.T, target)) / 2 if symmetric', '.T, target)) if symmetric'),
        Mutant('symmetric is ignored', '/ 2 if symmetric else loss', '/ 2 if False else loss'),
        Mutant('only the trained positive is known', 'passages[None, None, :]).any(1)', 'passages[None, None, :])[:, 0]'),
        Mutant('the trained positive is masked too', 'mask[own, first + own] = False', 'pass'),
        Mutant('known positives of another process are unmasked', 'mask[own, first + own] = False', 'mask[own, own] = False'),
        Mutant('cosine similarity instead of distance', '(1 - F.cosine_similarity(', '(F.cosine_similarity('),
        Mutant('the distance is summed over queries', 'full(positive), dim=-1)).mean()', 'full(positive), dim=-1)).sum()'),
        Mutant('the dot product instead of the cosine', 'F.cosine_similarity(full(q), full(positive), dim=-1)', '(full(q) * full(positive)).sum(-1)'),
        Mutant('the distance loss is subtracted', 'Losses(nce + w * dis,', 'Losses(nce - w * dis,'),
        Mutant('w is ignored', 'Losses(nce + w * dis,', 'Losses(nce + dis,'),
        Mutant('the last passages are taken for the positives', 'distance_loss(q, d[:len(q)])', 'distance_loss(q, d[-len(q):])'),
    ]),
}


def notebook_of(module): return next((ROOT/'nbs').glob(f'[0-9][0-9]_{module}.ipynb'))


def once(text, m:Mutant, place):
    "The text with the mutant's line in it. The list is out of date if the line is not there exactly once."
    if (n := text.count(m.was)) != 1: sys.exit(f'{place}: holds {m.was!r} {n} times, not once; bring tests/mutants.py up to date ({m.words})')
    return text.replace(m.was, m.now)


def mutated_notebook(path, m:Mutant)->str:
    "A notebook with the mutant in its exported cells."
    nb = json.loads(path.read_text(encoding='utf-8'))
    cells = [c for c in nb['cells'] if c['cell_type'] == 'code' and re.match(r'\s*#\s*\|\s*export\b', ''.join(c['source']))]
    gap = '\n# another cell\n'
    for c, source in zip(cells, once(gap.join(''.join(c['source']) for c in cells), m, path.name).split(gap)): c['source'] = source
    return json.dumps(nb)


def child(check, world, cache, output):
    "One check in a process of its own, forked with the libraries already there."
    for stream in (1, 2): os.dup2(output.fileno(), stream)
    os.chdir(world)
    sys.path[0] = str(world)
    os.environ |= {'PYTHONPATH': str(world), 'PYTHONDONTWRITEBYTECODE': '1', 'NUMBA_CACHE_DIR': str(cache), 'IN_TEST': '1'}
    sys.dont_write_bytecode, numba.config.CACHE_DIR, IPython.paths.get_ipython_cache_dir = True, str(cache), lambda: str(cache)
    hypothesis.settings.register_profile('unshrunk', phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]) # what fails need not be made small; conftest.py builds on it
    hypothesis.settings.load_profile('unshrunk')
    if check[0].isdigit(): failed = not nbdev.test.test_nb(world/f'nbs/{check}.ipynb', skip_flags=nbdev.config.get_config().tst_flags.split())[0]
    else: failed = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '--tb=line', *(a if a.startswith('-') or not a.startswith('test_') else f'tests/{a}' for a in shlex.split(check))])
    sys.stdout.flush(); sys.stderr.flush()
    os._exit(int(failed))


def run(check, world, cache)->str|None:
    "None if a check passes, or what failed."
    with tempfile.TemporaryFile('w+') as output:
        p = multiprocessing.get_context('fork').Process(target=child, args=(check, world, cache, output))
        p.start(); p.join(LONGEST)
        if p.exitcode is None: p.kill(); p.join(); return f'{check}: no end after {LONGEST} s'
        if p.exitcode == 0: return None
        output.seek(0)
        said = output.read()
    if check[0].isdigit(): failed, why = f'{check}.ipynb', said.strip().splitlines()[-1:]
    else:
        found, why = re.search(r'^(?:FAILED|ERROR) tests/(\S+)', said, re.M), re.findall(r'^\S+:\d+: .*', said, re.M)[:1]
        if not found: sys.exit(f'{check} could not be run:\n{said[-3000:]}')
        failed = found[1].split('[')[0]
    print(f'    {why[0][-150:] if why else ""}')
    return failed


def main():
    parser = argparse.ArgumentParser(description='Do the tests notice wrong lines?')
    parser.add_argument('--only', nargs='+', choices=MUTANTS, default=list(MUTANTS), metavar='MODULE', help=', '.join(MUTANTS))
    parser.add_argument('--unchecked', action='store_true', help='leave out the run without mutants')
    args = parser.parse_args()
    for module in args.only: # all lines are looked for before anything runs
        for m in MUTANTS[module][1]:
            compile(once((ROOT/f'dacl_dr/{module}.py').read_text(), m, f'{module}.py'), m.words, 'exec')
            mutated_notebook(notebook_of(module), m)
    rows, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        world = Path(tmp)/'world'
        world.mkdir()
        for name in COPIED: (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, world/name)
        for module in args.only:
            checks, mutants = MUTANTS[module]
            for check in () if args.unchecked else checks:
                if wrong := run(check, world, Path(tmp)/'numba'): sys.exit(f'{wrong} fails without any mutant; mend it first')
            files = world/f'dacl_dr/{module}.py', world/'nbs'/notebook_of(module).name
            for i, m in enumerate(mutants):
                whole = [f.read_text() for f in files]
                files[0].write_text(once(whole[0], m, files[0].name)); files[1].write_text(mutated_notebook(files[1], m))
                cache = Path(tmp)/f'numba-{module}-{i}' if 'njit' in whole[0] else Path(tmp)/'numba' # numba looks at the changed cell only, not at those that call it
                caught = next((c for check in checks if (c := run(check, world, cache))), '')
                for f, text in zip(files, whole): f.write_text(text)
                rows.append({'module': module, 'mutant': m.words, 'caught by': caught})
                print(f"{time.monotonic() - begin:6.0f} s  {module}: {m.words}: {caught or 'SURVIVED'}", flush=True)
    survived = [r for r in rows if not r['caught by']]
    print(f'{len(rows) - len(survived)} of {len(rows)} mutants caught')
    if args.only == list(MUTANTS) and not survived:
        with open(RESULT, 'w', newline='', encoding='utf-8') as f:
            out = csv.DictWriter(f, rows[0], lineterminator='\n'); out.writeheader(); out.writerows(rows)
    return 1 if survived else 0


if __name__ == '__main__': sys.exit(main())
