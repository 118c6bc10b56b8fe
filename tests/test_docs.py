"Each fault of the documentation is told in one line, and the repository has none."
import json, shutil
from pathlib import Path

import pytest, yaml

from docs_check import main, processing_faults, static_faults

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = lambda text: {'cell_type': 'markdown', 'id': f'm{abs(hash(text)) % 10**6}', 'metadata': {}, 'source': text}
CODE = lambda text, *outputs: {'cell_type': 'code', 'id': f'c{abs(hash(text)) % 10**6}', 'metadata': {}, 'execution_count': None, 'outputs': list(outputs), 'source': text}
GOOD = """## A heading: with `code`

See [the other page](other.ipynb#second-part), [above](#a-heading-with-code), [a picture](images/x.svg), @fig-one and Karpukhin et al. [-@karpukhin2020].

```sh
FOO=1 torchrun --nproc_per_node 2 --no-python dacl train-baseline --batch_size 8 \\
    --num_epochs 2   # a comment
cat x | dacl --help && dacl quickstart --w 0.4 > out.txt
```

`[not a link](nowhere.md)`, `dacl build-index --hnsw_m 16`, `dacl NAME --help`, me@example.org, recall@10
"""


def write_notebook(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'cells': [MARKDOWN(f'# {path.stem}\n\n> One line'), *cells], 'metadata': {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}, 'nbformat': 4, 'nbformat_minor': 5}))

def settings(root, change=lambda data: None):
    "Write the copy's _quarto.yml."
    data = {'project': {'type': 'website'}, 'bibliography': 'references.bib', 'format': {'html': {'theme': {'light': 'cosmo', 'dark': 'darkly'}}}, 'website': {'search': True, 'sidebar': {'contents': [{'section': 'Pages', 'contents': ['page.ipynb', 'other.ipynb']}]}}}
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
    'broken link': ('[x](othr.ipynb)', "nbs/page.ipynb: cell 3: broken link othr.ipynb: no such file; did you mean 'other.ipynb'?"),
    'broken anchor': ('[x](other.ipynb#secnd-part)', "nbs/page.ipynb: cell 3: broken anchor other.ipynb#secnd-part: no such heading; did you mean 'second-part'?"),
    'off the site': ('[x](../README.md)', 'nbs/page.ipynb: cell 3: link ../README.md leaves the site: give its address in the repository'),
    'missing picture': ('![x](images/y.svg)', 'broken link images/y.svg'),
    'missing cross-reference': ('See @fig-two.', "nbs/page.ipynb: cell 3: cross-reference @fig-two has no target on this page: did you mean 'fig-one'?"),
    'missing citation': ('See [@karpukin2020].', "nbs/page.ipynb: cell 3: citation @karpukin2020 is not in the bibliography: did you mean 'karpukhin2020'?"),
    'misspelt flag': ('```sh\ndacl quickstart --sedes 3\n```', "nbs/page.ipynb: cell 3: 'dacl quickstart --sedes 3' is refused: unknown flag or argument '--sedes'. Did you mean '--seeds'?"),
    'missing flag': ('```sh\ndacl build-index\n```', 'the following arguments are required'),
    'misspelt command in the text': ('Run `dacl quikstart`.', "'dacl quikstart' is refused"),
}

@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_fault_is_told(site, name):
    text, line = PLANTED[name]
    write_notebook(site/'nbs'/'page.ipynb', MARKDOWN(GOOD), CODE('#| label: fig-one\n1'), MARKDOWN(text))
    assert line in only(site)

def test_links_that_code_has_shown_are_followed(site):
    shown = {'output_type': 'execute_result', 'metadata': {}, 'execution_count': 1, 'data': {'text/markdown': '[x](nowhere.ipynb)'}}
    write_notebook(site/'nbs'/'other.ipynb', MARKDOWN('## Second part'), CODE('shown', shown))
    assert 'nbs/other.ipynb: cell 2: broken link nowhere.ipynb' in only(site)

def test_an_error_among_outputs(site):
    write_notebook(site/'nbs'/'other.ipynb', MARKDOWN('## Second part'), CODE('1/0', {'output_type': 'error', 'ename': 'ZeroDivisionError', 'evalue': '', 'traceback': []}))
    assert only(site) == 'nbs/other.ipynb: cell 2: its output is an error, ZeroDivisionError: mend the cell and run the notebook again'

def test_text_that_the_site_would_not_show(site):
    book = json.loads((site/'nbs'/'other.ipynb').read_text())
    book['cells'][0]['source'] += '\n\nIn: this. Out: that.'
    (site/'nbs'/'other.ipynb').write_text(json.dumps(book))
    assert "nbs/other.ipynb: cell 0: 'In: this. Out: that.' stands in the title's cell" in only(site)

def test_a_line_of_a_markdown_page(site):
    (site/'README.md').write_text('# Title\n\nText\n[page](nbs/pag.ipynb)\n')
    assert only(site) == "README.md: line 4: broken link nbs/pag.ipynb: no such file; did you mean 'nbs/page.ipynb'?"

SITE = {
    'not in the sidebar': (lambda d: d['website']['sidebar']['contents'][0]['contents'].pop(), '_quarto.yml: sidebar: nbs/other.ipynb is not listed: put it under the section it belongs to'),
    'listed twice': (lambda d: d['website']['sidebar']['contents'].append('page.ipynb'), '_quarto.yml: sidebar: nbs/page.ipynb is listed more than once: keep one'),
    'not there': (lambda d: d['website']['sidebar']['contents'].append('pages.ipynb'), "_quarto.yml: sidebar: pages.ipynb is not in nbs/: did you mean 'page.ipynb'?"),
    'unknown key': (lambda d: d['website'].update(serach=True), "_quarto.yml: website.serach: unknown key: did you mean 'search'?"),
    'unknown key of an entry': (lambda d: d['website']['sidebar']['contents'].append({'txt': 'x', 'contents': []}), "_quarto.yml: sidebar: txt: unknown key of a sidebar entry: did you mean 'text'?"),
    'unknown theme': (lambda d: d['format']['html']['theme'].update(dark='drkly'), "format.html.theme: drkly is no theme of Quarto: did you mean 'darkly'?"),
    'missing file': (lambda d: d['format']['html'].update(css='style.css'), '_quarto.yml: format.html.css: style.css is not in nbs/: write it or take it out'),
}

@pytest.mark.parametrize('name', SITE)
def test_a_fault_of_the_settings_is_told(site, name):
    change, line = SITE[name]
    settings(site, change)
    assert line in only(site)

def test_settings_that_are_not_yaml(site):
    (site/'_quarto.yml').write_text('project: [a\nb: c\n')
    assert any(f.startswith('_quarto.yml: line 2: not YAML: ') for f in static_faults(site))

def test_an_entry_that_nobody_cites(site):
    with open(site/'nbs'/'references.bib', 'a') as f: f.write('@misc{spare2020, title = {x}}\n')
    assert only(site) == 'nbs/references.bib: entry spare2020: no page cites it: cite it or take it out'

def test_the_exit_code_is_1(site, capsys):
    settings(site, SITE['unknown key'][0])
    assert main([str(site), '--static']) == 1 and len(capsys.readouterr().out.splitlines()) == 1

def test_what_nbdev_cannot_process_is_told(site):
    "show_doc resolves annotations as it runs: a name that is defined further down fails."
    write_notebook(site/'nbs'/'other.ipynb', CODE('#| default_exp other'), CODE("#| export\ndef f()->'Later': pass"), MARKDOWN('## Second part'))
    shutil.copy(ROOT/'settings.ini', site)
    [line] = processing_faults(site)
    assert line.startswith('nbs/other.ipynb: cell ') and "NameError: name 'Later' is not defined" in line


def test_processing_installs_nothing(site, monkeypatch):
    "Where Quarto is missing, nbdev's own program calls sudo and pip."
    (site/'bin').mkdir()
    for name in ('sudo', 'pip'):
        (site/'bin'/name).write_text(f'#!/bin/sh\necho "$0 $@" >> {site}/called\n')
        (site/'bin'/name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{site}/bin:/usr/bin:/bin')
    shutil.copy(ROOT/'settings.ini', site)
    (site/'dacl_dr').mkdir()
    (site/'dacl_dr'/'__init__.py').write_text('')
    assert processing_faults(site) == [] and not (site/'called').exists()

def test_the_version_is_written_once():
    "CITATION.cff cannot read settings.ini; this can."
    version = next(l.split('=')[1].strip() for l in (ROOT/'settings.ini').read_text().splitlines() if l.startswith('version'))
    assert str(yaml.safe_load((ROOT/'CITATION.cff').read_text())['version']) == version

def test_the_repository_is_whole():
    assert static_faults(ROOT) == []

def test_nbdev_processes_every_notebook():
    assert processing_faults(ROOT) == []
