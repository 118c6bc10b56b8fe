"""Is the documentation whole? The site's sources, checked without Quarto.

    python tests/docs_check.py [ROOT] [--static]

Links and anchors, cross-references, citations, `_quarto.yml`, the program's commands in code blocks, outputs of notebooks;
then every notebook goes through nbdev, as for the site, unless --static is given. One line a fault, exit code 1 if there are any.
"""
import argparse, contextlib, difflib, io, json, os, re, shlex, subprocess, sys
from pathlib import Path
from typing import NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dacl_dr.cli.main import build_parser, underscored
from dacl_dr.core.errors import DaclError

GENERATED = {'nbdev.yml'} # nbdev writes it from settings.ini
UNLISTED = {'404.qmd'} # pages that nobody is led to
THEMES = set('default cerulean cosmo cyborg darkly flatly journal litera lumen lux materia minty morph pulse quartz sandstone simplex sketchy slate solar spacelab superhero united vapor yeti zephyr'.split())
NAVIGATION = {k: None for k in 'text href section contents icon target rel id file url aria-label menu'.split()}
SIDEBAR = {k: None for k in 'id title subtitle logo logo-alt logo-href search tools contents style background foreground border alignment collapse-level pinned header footer'.split()}
CARD = {k: None for k in 'title description image image-alt image-width image-height locale site-name card-style creator site'.split()}
# keys of a Quarto website that are spelt as in its reference; None: anything below
KEYS = {
    'project': {k: None for k in 'title type render output-dir lib-dir resources preview execute-dir pre-render post-render'.split()},
    'format': {'html': {k: None for k in ('theme css toc toc-depth toc-location toc-title toc-expand code-tools code-copy code-fold code-overflow code-line-numbers code-summary highlight-style '
                                          'number-sections anchor-sections smooth-scroll link-external-icon link-external-newwindow fig-width fig-height fig-align fig-cap-location tbl-cap-location '
                                          'html-math-method mainfont monofont fontsize linestretch grid page-layout include-in-header include-before-body include-after-body respect-user-color-scheme lightbox').split()}},
    'website': {k: None for k in ('title description favicon site-url site-path repo-url repo-subdir repo-branch repo-link-target repo-link-rel issue-url repo-actions reader-mode google-analytics cookie-consent '
                                  'search navbar body-header body-footer margin-header margin-footer page-navigation back-to-top-navigation bread-crumbs page-footer image image-alt comments other-links code-links draft-mode drafts announcement').split()}
               | {'sidebar': SIDEBAR, 'open-graph': CARD, 'twitter-card': CARD},
    'execute': {k: None for k in 'enabled eval echo output warning error include cache freeze daemon'.split()},
    **{k: None for k in 'metadata-files bibliography csl link-citations citation-location lang crossref author date title profile'.split()},
}
FENCE = re.compile(r'^([ ]*)(```+|~~~+)[ ]*\{?\.?([\w-]*).*?\n(.*?)^\1\2[ ]*$', re.M | re.S)
LINK = re.compile(r'!?\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]+)"')
CITATION = re.compile(r'(?<![\w@/.`-])-?@([A-Za-z][\w:-]*\w)')
CROSS = re.compile(r'(?:fig|tbl|sec|eq|lst)-')


class Part(NamedTuple):
    "A piece of a page: a Markdown text, or the source of a code cell."
    page: Path
    cell: int # -1: the page is plain Markdown, and places are lines
    kind: str # markdown, output or code
    text: str

    def fault(self, root, at, what, remedy):
        "One line: where, what, what to do."
        place = f'cell {self.cell}' if self.cell >= 0 else f'line {self.text.count(chr(10), 0, at) + 1}'
        return f'{self.page.relative_to(root)}: {place}: {what}: {remedy}'


def text_of(source): return source if isinstance(source, str) else ''.join(source)

def cells_of(page): return json.loads(page.read_text(encoding='utf-8'))['cells']

def parts(page):
    "The pieces of a page; Markdown that a notebook's code has shown counts too."
    if page.suffix != '.ipynb': return [Part(page, -1, 'markdown', page.read_text(encoding='utf-8'))]
    found = []
    for i, c in enumerate(cells_of(page)):
        found.append(Part(page, i, c['cell_type'], text_of(c['source'])))
        found += [Part(page, i, 'output', text_of(o['data']['text/markdown'])) for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
    return found

def site_pages(root):
    "What the site is made of."
    hidden = lambda p: any(x.startswith(('.', '_')) for x in p.relative_to(root/'nbs').parts)
    return sorted(p for kind in ('ipynb', 'qmd', 'md') for p in (root/'nbs').rglob(f'*.{kind}') if not hidden(p))

def all_pages(root): return [p for n in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md') if (p := root/n).is_file()] + site_pages(root)

def blank(pattern, text, flags=0): return re.sub(pattern, lambda m: re.sub(r'[^\n]', ' ', m[0]), text, flags=flags)

def prose(text):
    "A text whose code, formulas and comments are blanks, so that places stay what they were."
    text = blank(FENCE, text)
    for pattern in (r'<!--.*?-->', r'\$\$.*?\$\$', r'(`+)(?!`).*?(?<!`)\1(?!`)'): text = blank(pattern, text, re.S)
    return text

def suggest(word, known):
    "A guess at what was meant."
    guess = difflib.get_close_matches(word, sorted(known), 1)
    return f"did you mean '{guess[0]}'?" if guess else 'known are ' + ', '.join(sorted(known)[:12]) if known else 'there are none'


# anchors and links

def slugs(heading):
    "The identifiers that Pandoc and GitHub give a heading."
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).replace('`', '').replace('*', '').lower().strip()
    github = re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')
    pandoc = re.sub(r'^[^a-z一-鿿]+', '', re.sub(r'[^\w\-. ]', '', plain).replace(' ', '-'))
    return github, pandoc

def anchors(page):
    "Every identifier a link into a page may name."
    found = set()
    for p in parts(page):
        text = blank(FENCE, p.text) if p.kind != 'code' else p.text
        found |= {m[1] for m in re.finditer(r'\{#([\w:.-]+)[^}]*\}' if p.kind != 'code' else r'^#\|\s*label:\s*(\S+)', text, re.M)}
        if p.kind == 'code': continue
        found |= {m[1] for m in re.finditer(r'\bid="([^"]+)"', text)}
        for m in re.finditer(r'^#{1,6}\s+(.*?)\s*(?:\{[^}]*\})?\s*$', text, re.M):
            github, pandoc = slugs(m[1])
            found.add(pandoc if page.parent.name and page.suffix == '.ipynb' else github)
    return found

def link_faults(root, page):
    "Links to files and headings that are not there. Addresses elsewhere are not looked up."
    on_site = page.is_relative_to(root/'nbs')
    for p in parts(page):
        if p.kind == 'code': continue
        for m in LINK.finditer(prose(p.text)):
            link = m[1] or m[2]
            if re.match(r'[a-z][a-z0-9+.-]*:|//', link): continue
            path, _, anchor = link.partition('#')
            target = (page.parent/path).resolve() if path else page
            if not target.exists(): yield p.fault(root, m.start(), f'broken link {link}', f"no such file; {suggest(path, {os.path.relpath(q, page.parent) for q in all_pages(root)})}")
            elif on_site and not target.is_relative_to((root/'nbs').resolve()): yield p.fault(root, m.start(), f'link {link} leaves the site', 'give its address in the repository')
            elif anchor and target.suffix in ('.ipynb', '.md', '.qmd') and anchor not in (known := anchors(target)): yield p.fault(root, m.start(), f'broken anchor {link}', f'no such heading; {suggest(anchor, known)}')


# cross-references and citations

def bibliography(root):
    "The keys of the bibliography that `_quarto.yml` names."
    files = (quarto(root) or {}).get('bibliography') or []
    files = [files] if isinstance(files, str) else files
    return {m[1] for f in files if (root/'nbs'/f).is_file() for m in re.finditer(r'^\s*@\w+\{\s*([^,\s]+)\s*,', (root/'nbs'/f).read_text(encoding='utf-8'), re.M)}

def cited(page):
    "Each `@key` of a page, with the part and place it stands in."
    return [(p, m) for p in parts(page) if p.kind == 'markdown' for m in CITATION.finditer(prose(p.text))]

def reference_faults(root, page):
    "Cross-references without a target on the page, citations without an entry."
    known = anchors(page)
    for p, m in cited(page):
        key = m[1]
        if CROSS.match(key):
            if key not in known: yield p.fault(root, m.start(), f'cross-reference @{key} has no target on this page', suggest(key, {k for k in known if CROSS.match(k)}))
        elif key not in (entries := bibliography(root)): yield p.fault(root, m.start(), f'citation @{key} is not in the bibliography', suggest(key, entries))

def unused_entries(root, pages):
    "Entries of the bibliography that no page cites."
    used = {m[1] for page in pages for _, m in cited(page)}
    return [f'nbs/references.bib: entry {k}: no page cites it: cite it or take it out' for k in sorted(bibliography(root) - used)]


# the program's commands

def commands(text):
    "The words after `dacl` of each command in a shell's code block, with their places."
    for fence in FENCE.finditer(text):
        if fence[3] not in ('', 'sh', 'bash', 'console', 'shell'): continue
        for line in re.finditer(r'(?:[^\n]*\\\n)*[^\n]*', fence[4]):
            lexer = shlex.shlex(line[0].replace('\\\n', ' '), posix=True, punctuation_chars='();<>|&')
            lexer.whitespace_split = True
            try: words = list(lexer)
            except ValueError: continue
            yield from ((fence.start(4) + line.start(), c) for c in split_commands(words))

def split_commands(words):
    "The arguments of every `dacl` in a line of shell."
    while words:
        cut = next((i for i, w in enumerate(words) if re.fullmatch(r'[();<>|&]+', w)), len(words))
        command, words = words[:cut], words[cut + 1:]
        while command and re.fullmatch(r'\$|!|\w+=.*|time|nohup', command[0]): command = command[1:]
        if command and command[0] == 'torchrun' and '--no-python' in command: command = command[command.index('--no-python') + 1:]
        if command and command[0] == 'dacl': yield command[1:]

def refused(words):
    "What the program says to a command; '' if it takes it."
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): build_parser().parse_args(underscored(words))
    except DaclError as e: return str(e)
    except SystemExit: pass # --help, --version
    return ''

def command_faults(root, page):
    "Commands that the program refuses, in code blocks and, but for what they leave out, in running text."
    for p in parts(page):
        if p.kind == 'code': continue
        inline = [(m.start(), shlex.split(m[1])[1:]) for m in re.finditer(r'`(dacl [^`\n]+)`', blank(FENCE, p.text))]
        for at, words, whole in [*((a, w, True) for a, w in commands(p.text)), *((a, w, False) for a, w in inline)]:
            said = refused(words)
            if said and (whole or not (re.search('are required|expected', said) or words[0].isupper())): yield p.fault(root, at, f"'dacl {' '.join(words)[:60]}' is refused", said)


# notebooks

def notebook_faults(root, page):
    "Errors among outputs, and text that nbdev drops because it stands in the title's cell."
    if page.suffix != '.ipynb': return
    for i, c in enumerate(cells_of(page)):
        part = Part(page, i, c['cell_type'], text_of(c['source']))
        for o in c.get('outputs', []):
            if o['output_type'] == 'error': yield part.fault(root, 0, f"its output is an error, {o['ename']}", 'mend the cell and run the notebook again')
        if i == 0 and (rest := re.sub(r'\A# .+\n\n> .+\n*((- [\w-]+: .*\n?)*)', '', part.text).strip()): yield part.fault(root, 0, f"'{rest[:40]}' stands in the title's cell", 'put it into a cell of its own, or the site will not show it')


# _quarto.yml

def quarto(root):
    "The site's settings; None if they can't be read."
    try: return yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError): return None

def unknown_keys(data, known, at=''):
    "Keys that Quarto does not have."
    for k, v in (data or {}).items():
        path = f'{at}.{k}'.lstrip('.')
        if k not in known: yield f'_quarto.yml: {path}: unknown key: {suggest(k, known)}'
        elif known[k] and isinstance(v, dict): yield from unknown_keys(v, known[k], path)

def hrefs(contents, at):
    "Every page of a sidebar, with the section it stands in."
    for item in contents if isinstance(contents, list) else []:
        if isinstance(item, str): yield at, item
        else:
            yield from (f'{at}: {k}' for k in item if k not in NAVIGATION)
            if 'href' in item: yield at, item['href']
            if 'contents' in item: yield from hrefs(item['contents'], item.get('section') or item.get('text') or at)

def sidebar_faults(root, contents):
    "Pages that are not there, not listed, or listed twice."
    entries = [*hrefs(contents, 'sidebar')]
    yield from (f'_quarto.yml: {e}: unknown key of a sidebar entry: {suggest(e.split(": ")[-1], NAVIGATION)}' for e in entries if isinstance(e, str))
    listed = [e for e in entries if not isinstance(e, str)]
    there = {str(p.relative_to(root/'nbs')) for p in site_pages(root)}
    for section, href in listed:
        if href not in there: yield f'_quarto.yml: {section}: {href} is not in nbs/: {suggest(href, there)}'
    names = [href for _, href in listed]
    for page in sorted(there - UNLISTED):
        if names.count(page) != 1: yield f"_quarto.yml: sidebar: nbs/{page} is {'listed more than once: keep one' if page in names else 'not listed: put it under the section it belongs to'}"

def files_named(data):
    "Every file that `_quarto.yml` names, with the key."
    html, site = (data.get('format') or {}).get('html') or {}, data.get('website') or {}
    card = site.get('open-graph') if isinstance(site.get('open-graph'), dict) else {}
    for key, value in (('bibliography', data.get('bibliography')), ('csl', data.get('csl')), ('metadata-files', data.get('metadata-files')), ('format.html.css', html.get('css')),
                       ('website.image', site.get('image')), ('website.favicon', site.get('favicon')), ('website.open-graph.image', card.get('image'))):
        yield from ((key, v) for v in ([value] if isinstance(value, str) else value or []))

def quarto_faults(root):
    "What is wrong in `_quarto.yml`."
    try: data = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
    except yaml.YAMLError as e: yield f'_quarto.yml: line {e.problem_mark.line + 1}: not YAML: {e.problem}'; return
    if (root/'nbs'/'_quarto.yml').resolve() != (root/'_quarto.yml').resolve(): yield 'nbs/_quarto.yml: line 1: is no link to ../_quarto.yml: ln -sf ../_quarto.yml nbs/_quarto.yml'
    yield from unknown_keys(data, KEYS)
    yield from (f'_quarto.yml: {key}: {name} is not in nbs/: write it or take it out' for key, name in files_named(data) if name not in GENERATED and not (root/'nbs'/name).is_file())
    theme = ((data.get('format') or {}).get('html') or {}).get('theme') or []
    for t in theme.values() if isinstance(theme, dict) else [theme] if isinstance(theme, str) else theme:
        for name in [t] if isinstance(t, str) else t:
            if name not in THEMES and not (root/'nbs'/name).is_file(): yield f'_quarto.yml: format.html.theme: {name} is no theme of Quarto: {suggest(name, THEMES)}'
    yield from sidebar_faults(root, ((data.get('website') or {}).get('sidebar') or {}).get('contents'))


# what nbdev makes of it

# not the program nbdev_proc_nbs: where Quarto is missing, it begins by installing that as root and this package with pip
PROCESS = 'from nbdev.quarto import refresh_quarto_yml; from nbdev.serve import proc_nbs; refresh_quarto_yml(); proc_nbs()'

def processing_faults(root):
    "Send every notebook through nbdev, as for the site, and follow the links to names that it has made."
    done = subprocess.run([sys.executable, '-c', PROCESS], cwd=root, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(root)})
    if done.returncode:
        where = re.findall(r'Error in notebook: (.+?) in cell (\d+)', done.stderr)
        why = re.findall(r'^(\w*(?:Error|Exception)): (.+)$', done.stderr, re.M) or [('', done.stderr.strip().splitlines()[-1])]
        page = next((p for p in site_pages(root) if where and p.suffix == '.ipynb' and text_of(cells_of(p)[0]['source']).startswith(f'# {where[-1][0]}\n')), root/'nbs')
        return [f"{page.relative_to(root)}: cell {where[-1][1] if where else '?'}: nbdev cannot process it, {': '.join(why[0]).strip(': ')}: what show_doc prints must be defined by exported cells before it"]
    pages = [p for p in sorted((root/'_proc').rglob('*.ipynb')) if (root/'nbs'/p.relative_to(root/'_proc')).is_file()]
    dead = [f'{p.relative_to(root)}: a chart is not live: settings.ini must name dacl_dr.report.notebook:live_charts among procs' for p in pages if '"application/vnd.vegalite' in p.read_text(encoding='utf-8')]
    return dead + [f for p in pages for f in name_faults(root, p)]

def name_faults(root, page):
    "Links to functions and classes, made from names in backticks, that lead nowhere; for a method its class will do."
    site = re.search(r'site-url: "(.*)"', (root/'_proc'/'nbdev.yml').read_text())[1]
    numbered = {re.sub(r'^\d+[a-z]?_', '', p.stem): p for p in (root/'_proc').glob('*.ipynb')}
    for p in parts(page):
        if p.kind == 'code': continue
        for name, anchor in sorted(set(re.findall(rf'{re.escape(site)}/(\w+)\.html#([\w.]+)', p.text))):
            shown = {a.lower() for a in anchors(numbered[name])} if name in numbered else set()
            if not {anchor, anchor.split('.')[0]} & shown: yield p.fault(root, 0, f'the link of a name leads to {name}.html#{anchor}, which the site has not', 'name something that is shown, or use no backticks')


def static_faults(root):
    "All that can be seen without running anything."
    pages, site = all_pages(root), set(site_pages(root))
    faults = [*quarto_faults(root)]
    for page in pages:
        for look in (link_faults, command_faults, notebook_faults, *([reference_faults] if page in site else [])): faults += look(root, page)
    return faults + unused_entries(root, site)

def main(argv=None):
    "Print the faults; 1 if there are any."
    p = argparse.ArgumentParser(description='Check the documentation without Quarto.')
    p.add_argument('root', nargs='?', type=Path, default=Path(__file__).resolve().parents[1])
    p.add_argument('--static', action='store_true', help="don't send notebooks through nbdev")
    args = p.parse_args(argv)
    root = args.root.resolve()
    faults = static_faults(root) or ([] if args.static else processing_faults(root))
    print('\n'.join(faults or [f"{len(all_pages(root))} pages: links, references, citations, commands and _quarto.yml are whole{'' if args.static else '; nbdev processes every notebook'}"]))
    return 1 if faults else 0


if __name__ == '__main__': sys.exit(main())
