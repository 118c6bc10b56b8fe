"Each fault of the documentation is told in one line, and the repository has none."
import json, shutil
from pathlib import Path

import pytest, yaml

from docs.processed import processed_faults, processing_faults
from docs_check import main, static_faults

ROOT = Path(__file__).resolve().parents[1]
def MARKDOWN(text):
    return {'cell_type': 'markdown', 'id': f'm{abs(hash(text)) % 10**6}', 'metadata': {}, 'source': text}

def CODE(text, *outputs):
    return {
        'cell_type': 'code', 'id': f'c{abs(hash(text)) % 10**6}', 'metadata': {}, 'execution_count': None,
        'outputs': list(outputs), 'source': text,
    }

def SHOWN(kind, text):
    "An output."
    return {'output_type': 'display_data', 'metadata': {}, 'data': {f'text/{kind}': text}}

GOOD = """## A heading: with `code`

See [the other page](other.ipynb#second-part), [above](#a-heading-with-code), [a picture](images/x.svg), @fig-one
and Karpukhin et al. [-@karpukhin2020].

```sh
FOO=1 torchrun --nproc_per_node 2 --no-python dacl train-baseline --batch_size 8 \\
    --num_epochs 2   # a comment
cat x | dacl --help && dacl quickstart --w 0.4 > out.txt
```

`[not a link](nowhere.md)`, `dacl build-index --hnsw_m 16`, `dacl NAME --help`, me@example.org, recall@10
"""


def write_notebook(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}
    title = MARKDOWN(f'# {path.stem}\n\n> One line')
    book = {'cells': [title, *cells], 'metadata': {'kernelspec': kernel}, 'nbformat': 4, 'nbformat_minor': 5}
    path.write_text(json.dumps(book))

def settings(root, change=lambda data: None):
    "Write the copy's _quarto.yml."
    pages = [{'section': 'Pages', 'contents': ['page.ipynb', 'other.ipynb']}]
    data = {
        'project': {'type': 'website'},
        'bibliography': 'references.bib',
        'format': {'html': {'theme': {'light': 'cosmo', 'dark': 'darkly'}}},
        'website': {'search': True, 'sidebar': {'contents': pages}},
    }
    change(data)
    (root/'_quarto.yml').write_text(yaml.safe_dump(data))

@pytest.fixture
def site(tmp_path):
    "A small project without a fault."
    write_notebook(tmp_path/'nbs'/'page.ipynb', MARKDOWN(GOOD), CODE('#| label: fig-one\n1'))
    write_notebook(tmp_path/'nbs'/'other.ipynb', MARKDOWN('## Second part'))
    (tmp_path/'nbs'/'images').mkdir()
    (tmp_path/'nbs'/'images'/'x.svg').write_text('<svg/>')
    (tmp_path/'nbs'/'references.bib').write_text('@inproceedings{karpukhin2020,\n  title = {DPR}\n}\n')
    (tmp_path/'README.md').write_text('# Title\n\n[page](nbs/page.ipynb), [here](#title)\n')
    (tmp_path/'nbs'/'_quarto.yml').symlink_to('../_quarto.yml')
    settings(tmp_path)
    return tmp_path

def only(site):
    "The one fault of a copy."
    faults = static_faults(site)
    assert len(faults) == 1 and '\n' not in faults[0], faults
    return faults[0]


def test_a_whole_site_has_no_fault(site, capsys):
    assert static_faults(site) == []
    assert main([str(site), '--static']) == 0 and '3 pages' in capsys.readouterr().out

PLANTED = {
    'broken link': (
        '[x](othr.ipynb)', "nbs/page.ipynb: cell 3: broken link othr.ipynb: no such file; did you mean 'other.ipynb'?"),
    'broken anchor': (
        '[x](other.ipynb#secnd-part)',
        "nbs/page.ipynb: cell 3: broken anchor other.ipynb#secnd-part: no such heading; did you mean 'second-part'?"),
    'off the site': (
        '[x](../README.md)',
        'nbs/page.ipynb: cell 3: link ../README.md leaves the site: give its address in the repository'),
    'missing picture': ('![x](images/y.svg)', 'broken link images/y.svg'),
    'missing cross-reference': (
        'See @fig-two.',
        "nbs/page.ipynb: cell 3: cross-reference @fig-two has no target on this page: did you mean 'fig-one'?"),
    'missing citation': (
        'See [@karpukin2020].',
        "nbs/page.ipynb: cell 3: citation @karpukin2020 is not in the bibliography: did you mean 'karpukhin2020'?"),
    'misspelt flag': (
        '```sh\ndacl quickstart --sedes 3\n```',
        "nbs/page.ipynb: cell 3: 'dacl quickstart --sedes 3' is refused: unknown flag or argument '--sedes'. Did you "
        "mean '--seeds'?"),
    'missing flag': ('```sh\ndacl build-index\n```', 'the following arguments are required'),
    'misspelt command in the text': ('Run `dacl quikstart`.', "'dacl quikstart' is refused"),
}

@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_fault_is_told(site, name):
    text, line = PLANTED[name]
    write_notebook(site/'nbs'/'page.ipynb', MARKDOWN(GOOD), CODE('#| label: fig-one\n1'), MARKDOWN(text))
    assert line in only(site)

def test_links_that_code_has_shown_are_followed(site):
    shown = {
        'output_type': 'execute_result', 'metadata': {}, 'execution_count': 1,
        'data': {'text/markdown': '[x](nowhere.ipynb)'}}
    write_notebook(site/'nbs'/'other.ipynb', MARKDOWN('## Second part'), CODE('shown', shown))
    assert 'nbs/other.ipynb: cell 2: broken link nowhere.ipynb' in only(site)

def test_an_error_among_outputs(site):
    write_notebook(
        site/'nbs'/'other.ipynb', MARKDOWN('## Second part'),
        CODE('1/0', {'output_type': 'error', 'ename': 'ZeroDivisionError', 'evalue': '', 'traceback': []}))
    assert only(site) == (
        'nbs/other.ipynb: cell 2: its output is an error, ZeroDivisionError: mend the cell and run the notebook again')

def test_text_that_the_site_would_not_show(site):
    book = json.loads((site/'nbs'/'other.ipynb').read_text())
    book['cells'][0]['source'] += '\n\nIn: this. Out: that.'
    (site/'nbs'/'other.ipynb').write_text(json.dumps(book))
    assert "nbs/other.ipynb: cell 0: 'In: this. Out: that.' stands in the title's cell" in only(site)

def test_a_line_of_a_markdown_page(site):
    (site/'README.md').write_text('# Title\n\nText\n[page](nbs/pag.ipynb)\n')
    assert only(site) == "README.md: line 4: broken link nbs/pag.ipynb: no such file; did you mean 'nbs/page.ipynb'?"

SITE = {
    'not in the sidebar': (
        lambda d: d['website']['sidebar']['contents'][0]['contents'].pop(),
        '_quarto.yml: sidebar: nbs/other.ipynb is not listed: put it under the section it belongs to'),
    'listed twice': (
        lambda d: d['website']['sidebar']['contents'].append('page.ipynb'),
        '_quarto.yml: sidebar: nbs/page.ipynb is listed more than once: keep one'),
    'not there': (
        lambda d: d['website']['sidebar']['contents'].append('pages.ipynb'),
        "_quarto.yml: sidebar: pages.ipynb is not in nbs/: did you mean 'page.ipynb'?"),
    'unknown key': (
        lambda d: d['website'].update(serach=True), "_quarto.yml: website.serach: unknown key: did you mean 'search'?"),
    'unknown key of an entry': (
        lambda d: d['website']['sidebar']['contents'].append({'txt': 'x', 'contents': []}),
        "_quarto.yml: sidebar: txt: unknown key of a sidebar entry: did you mean 'text'?"),
    'unknown theme': (
        lambda d: d['format']['html']['theme'].update(dark='drkly'),
        "format.html.theme: drkly is no theme of Quarto: did you mean 'darkly'?"),
    'missing file': (
        lambda d: d['format']['html'].update(css='style.css'),
        '_quarto.yml: format.html.css: style.css is not in nbs/: write it or take it out'),
}

@pytest.mark.parametrize('name', SITE)
def test_a_fault_of_the_settings_is_told(site, name):
    change, line = SITE[name]
    settings(site, change)
    assert line in only(site)

def test_two_files_that_become_one_page(site):
    "Numbers before a name are dropped, so one page replaces the other."
    write_notebook(site/'nbs'/'27_other.ipynb')
    settings(site, lambda d: d['website']['sidebar']['contents'].append('27_other.ipynb'))
    assert only(site) == (
        'nbs/other.ipynb: becomes other.html, as nbs/27_other.ipynb does: give one of them another name'
    )

def test_view_source_that_leads_nowhere(site):
    settings(site, lambda d: d['website'].update({'repo-actions': ['source'], 'repo-subdir': 'nbs'}))
    assert static_faults(site) == []
    settings(site, lambda d: d['website'].update({'repo-actions': ['source']}))
    assert only(site) == (
        '_quarto.yml: website.repo-subdir: "View source" of nbs/other.ipynb leads to other.ipynb, '
        'which is not there: it must be nbs'
    )

def test_settings_that_are_not_yaml(site):
    (site/'_quarto.yml').write_text('project: [a\nb: c\n')
    assert any(f.startswith('_quarto.yml: line 2: not YAML: ') for f in static_faults(site))

def test_an_entry_that_nobody_cites(site):
    with open(site/'nbs'/'references.bib', 'a') as f: f.write('@misc{spare2020, title = {x}}\n')
    assert only(site) == 'nbs/references.bib: entry spare2020: no page cites it: cite it or take it out'

def test_the_exit_code_is_1(site, capsys):
    settings(site, SITE['unknown key'][0])
    assert main([str(site), '--static']) == 1 and len(capsys.readouterr().out.splitlines()) == 1

SOURCE = '[source](https://host/o/r/blob/main/dacl_dr/x.py#L3){.source-link}'
STRUCT = f'{SOURCE}\n\n### Cake {{#Cake}}\n\n```python\nclass Cake(NamedTuple)\n```\n\nA cake.\n\n'
FIELDS = '```{=html}\n<table><caption>Fields</caption><tr><td>eggs</td></tr></table>\n```'
FUNCTION = STRUCT.replace('class Cake(NamedTuple)', 'def Cake(eggs:int=3)')
MODULE = 'from typing import NamedTuple\n\nclass Cake(NamedTuple):\n    "A cake."\n    eggs: int = 3\n'

@pytest.fixture
def made(site):
    "The same project with pages as nbdev makes them."
    def make(*cells):
        write_notebook(site/'_proc'/'page.ipynb', *cells)
        return site
    write_notebook(site/'_proc'/'other.ipynb', MARKDOWN('## Second part'))
    (site/'dacl_dr').mkdir()
    (site/'dacl_dr'/'x.py').write_text(MODULE)
    return make

def cake(text, *more): return [CODE('show_doc(Cake)', SHOWN('markdown', text)), *more]

def test_a_whole_reference_has_no_fault(made):
    links = MARKDOWN('[`Cake`](#Cake), [x](other.html#second-part), [elsewhere](https://example.org)')
    shown = MARKDOWN('`[x](nowhere.html#x)` and\n\n```html\n<script src="https://example.org/x.js"></script>\n```')
    assert processed_faults(made(*cake(STRUCT + FIELDS), links, shown)) == []

REFERENCE = {
    'no fields': (cake(STRUCT), 'cell 1: Cake shows no fields: settings.ini must name'),
    'any arguments': (
        cake(FUNCTION.replace('eggs:int=3', '\n    *args, **kwargs\n')), 'cell 1: Cake shows no fields: '
    ),
    'raw Markdown': (
        cake(FUNCTION.replace('eggs', 'eggs # [`Egg`](other.html#second-part)', 1)),
        'cell 1: raw Markdown in the signature of Cake: settings.ini must have skip_procs = add_links',
    ),
    'type of None': (
        cake(FUNCTION.replace('int=3', 'NoneType=None')), "cell 1: ':NoneType' in what is shown of Cake: "),
    'class of a notebook': (cake(FUNCTION.replace('int=3', '__main__.Egg')), "cell 1: '__main__.' in what is shown of"),
    'address': (
        cake(FUNCTION.replace('int=3', '<Egg object at 0x7f>')), "cell 1: 'object at 0x' in what is shown of Cake"),
    'factory': (cake(FUNCTION.replace('int=3', '<factory>')), "cell 1: '<factory>' in what is shown of Cake: "),
    'long line': (
        cake(FUNCTION.replace('eggs', 'eggs' + '_'*120)),
        'cell 1: the signature of Cake has a line of more than 120 columns',
    ),
    'wrong line': (
        cake((STRUCT + FIELDS).replace('#L3', '#L4')),
        'cell 1: the source link of Cake leads to dacl_dr/x.py#L4, which does not define it: run nbdev_export',
    ),
    'wrong file': (
        cake((STRUCT + FIELDS).replace('x.py', 'y.py')),
        'the source link of Cake leads to dacl_dr/y.py#L3, which does not'
    ),
    'no source': (cake((STRUCT + FIELDS).replace(SOURCE, '')), 'cell 1: Cake has no link to its source: export it'),
    'name without a page': (
        [MARKDOWN('[`Egg`](egg.html#Egg)')],
        'cell 1: the link of a name leads to egg.html#Egg, which the site has not: '
    ),
    'name without an anchor': (
        [MARKDOWN('[`Egg`](other.html#Egg)')], 'the link of a name leads to other.html#Egg, which the site has not'
    ),
    'name in a table': (
        cake(STRUCT + FIELDS.replace('eggs', '<a href="#Egg">Egg</a>')),
        'the link of a name leads to page.html#Egg, which'
    ),
    'two anchors': (
        cake(STRUCT + FIELDS, MARKDOWN('## Cake {#Cake}')), 'cell 1: a heading takes the anchor #Cake too: '
    ),
    'script from elsewhere': (
        [CODE('1', SHOWN('html', '<script src="https://cdn.example.org/x.js"></script>'))],
        'cell 1: the page would fetch from cdn.example.org: serve the file from the site',
    ),
    'style from elsewhere': (
        [MARKDOWN('<link rel="stylesheet" href="//fonts.example.org/x.css">')], 'would fetch from fonts.example.org'
    ),
    'import from elsewhere': (
        [MARKDOWN('```{=html}\n<script type="module">import x from "https://esm.example.org/x"</script>\n```')],
        'cell 1: the page would fetch from esm.example.org',
    ),
    'picture from elsewhere': (
        [MARKDOWN('<img alt="x" src="http://example.org/x.png">')], 'would fetch from example.org'),
    'table without a caption': (
        [CODE('1', SHOWN('html', '<table><caption>x</caption></table>\n<table class="y"><tr><td>1</td></tr></table>'))],
        'cell 1: a table has no caption: give its cell `#| tbl-cap: words`',
    ),
    'chart that is data': (
        [CODE('1', {'output_type': 'display_data', 'metadata': {}, 'data': {'application/vnd.vegalite.v6+json': {}}})],
        '_proc/page.ipynb: a chart is not live: settings.ini must name dacl_dr.report.notebook:live_charts',
    ),
}

@pytest.mark.parametrize('name', REFERENCE)
def test_a_planted_fault_of_the_reference_is_told(made, name):
    cells, line = REFERENCE[name]
    faults = processed_faults(made(*cells))
    assert len(faults) == 1 and '\n' not in faults[0] and line in faults[0], faults

def test_names_are_told_apart_by_their_folder(site):
    "Pages of one name stand in many folders, so a link is followed by its path."
    for name in ('one/index', 'two/index'): write_notebook(site/'nbs'/f'{name}.ipynb')
    write_notebook(site/'_proc'/'one'/'index.ipynb', MARKDOWN('## Egg {#Egg}'))
    write_notebook(
        site/'_proc'/'two'/'index.ipynb', MARKDOWN('[`Egg`](../one/index.html#Egg), [`Egg`](index.html#Egg)'))
    [line] = processed_faults(site)
    assert line.startswith('_proc/two/index.ipynb: cell 1: the link of a name leads to index.html#Egg, ')

@pytest.mark.parametrize('code, said', {
    'def f(x=later): pass': "NameError: name 'later' is not defined",
    'def f(x): pass': "DaclError: no exported name 'f': run nbdev_export",
}.items())
def test_what_nbdev_cannot_process_is_told(site, code, said):
    "A name that is defined further down, and one that was not exported."
    cells = [CODE('#| default_exp other'), CODE(f'#| export\n{code}'), MARKDOWN('## Second part')]
    write_notebook(site/'nbs'/'other.ipynb', *cells)
    shutil.copy(ROOT/'settings.ini', site)
    (site/'dacl_dr').symlink_to(ROOT/'dacl_dr')
    [line] = processing_faults(site)
    assert line.startswith('nbs/other.ipynb: cell ') and said in line

def test_processing_installs_nothing(site, monkeypatch):
    "Where Quarto is missing, nbdev's own program calls sudo and pip."
    (site/'bin').mkdir()
    for name in ('sudo', 'pip'):
        (site/'bin'/name).write_text(f'#!/bin/sh\necho "$0 $@" >> {site}/called\n')
        (site/'bin'/name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{site}/bin:/usr/bin:/bin')
    shutil.copy(ROOT/'settings.ini', site)
    (site/'dacl_dr').symlink_to(ROOT/'dacl_dr')
    assert processing_faults(site) == [] and not (site/'called').exists()

def test_the_version_is_written_once():
    "CITATION.cff cannot read settings.ini; this can."
    version = next(
        l.split('=')[1].strip() for l in (ROOT/'settings.ini').read_text().splitlines() if l.startswith('version'))
    assert str(yaml.safe_load((ROOT/'CITATION.cff').read_text())['version']) == version

def test_the_repository_is_whole():
    assert static_faults(ROOT) == []

def test_nbdev_processes_every_notebook():
    assert processing_faults(ROOT) == []
