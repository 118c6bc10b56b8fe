"Links, cross-references, citations and outputs, as the notebooks have them."
import os, re

from .pages import Part, all_pages, anchors, cells_of, parts, prose, site_pages, suggest, text_of
from .settings import quarto

LINK = re.compile(
    r'!?\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)'
    r'|<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]+)"'
)
CITATION = re.compile(r'(?<![\w@/.`-])-?@([A-Za-z][\w:-]*\w)')
CROSS = re.compile(r'(?:fig|tbl|sec|eq|lst)-')


def link_fault(root, page, link):
    "What is wrong with a link, and the remedy; None if it leads somewhere. Addresses elsewhere are not looked up."
    if re.match(r'[a-z][a-z0-9+.-]*:|//', link): return None
    path, _, anchor = link.partition('#')
    target = (page.parent/path).resolve() if path else page
    if not target.exists():
        known = {os.path.relpath(q, page.parent) for q in all_pages(root)}
        return f'broken link {link}', f'no such file; {suggest(path, known)}'
    if page.is_relative_to(root/'nbs') and not target.is_relative_to((root/'nbs').resolve()):
        return f'link {link} leaves the site', 'give its address in the repository'
    if anchor and target.suffix in ('.ipynb', '.md', '.qmd') and anchor not in (known := anchors(target)):
        return f'broken anchor {link}', f'no such heading; {suggest(anchor, known)}'

def link_faults(root, page):
    "Links to files and headings that are not there."
    for p in parts(page):
        if p.kind == 'code': continue
        for m in LINK.finditer(prose(p.text)):
            fault = link_fault(root, page, m[1] or m[2])
            if fault: yield p.fault(root, m.start(), *fault)


def bibliography(root):
    "The keys of the bibliography that `_quarto.yml` names."
    files = (quarto(root) or {}).get('bibliography') or []
    files = [root/'nbs'/f for f in ([files] if isinstance(files, str) else files)]
    texts = [f.read_text(encoding='utf-8') for f in files if f.is_file()]
    return {m[1] for t in texts for m in re.finditer(r'^\s*@\w+\{\s*([^,\s]+)\s*,', t, re.M)}

def cited(page):
    "Each `@key` of a page, with the part and place it stands in."
    return [(p, m) for p in parts(page) if p.kind == 'markdown' for m in CITATION.finditer(prose(p.text))]

def reference_faults(root, page):
    "Cross-references without a target on the page, citations without an entry."
    known = anchors(page)
    for p, m in cited(page):
        key = m[1]
        if CROSS.match(key):
            if key in known: continue
            guess = suggest(key, {k for k in known if CROSS.match(k)})
            yield p.fault(root, m.start(), f'cross-reference @{key} has no target on this page', guess)
        elif key not in (entries := bibliography(root)):
            yield p.fault(root, m.start(), f'citation @{key} is not in the bibliography', suggest(key, entries))

def unused_entries(root, pages):
    "Entries of the bibliography that no page cites."
    used = {m[1] for page in pages for _, m in cited(page)}
    spare = sorted(bibliography(root) - used)
    return [f'nbs/references.bib: entry {k}: no page cites it: cite it or take it out' for k in spare]


def notebook_faults(root, page):
    "Errors among outputs, and text that nbdev drops because it stands in the title's cell."
    if page.suffix != '.ipynb': return
    for i, c in enumerate(cells_of(page)):
        part = Part(page, i, c['cell_type'], text_of(c['source']))
        for o in c.get('outputs', []):
            if o['output_type'] != 'error': continue
            what = f"its output is an error, {o['ename']}"
            yield part.fault(root, 0, what, 'mend the cell and run the notebook again')
        rest = re.sub(r'\A# .+\n\n> .+\n*((- [\w-]+: .*\n?)*)', '', part.text).strip()
        if i == 0 and rest:
            yield part.fault(
                root, 0, f"'{rest[:40]}' stands in the title's cell",
                'put it into a cell of its own, or the site will not show it',
            )


def output_name(page):
    "The page of the site that nbdev makes of a file: numbers before its name are dropped."
    name = re.sub(r'^\d+[a-zA-Z0-9]*_', '', page.name.lower()) if page.suffix == '.ipynb' else page.name
    return page.with_name(name).with_suffix('.html')

def twin_faults(root):
    "Two files that become one page: the later one replaces the other."
    made = {}
    for page in site_pages(root):
        twin = made.setdefault(output_name(page), page)
        if twin == page: continue
        name = output_name(page).relative_to(root/'nbs')
        yield (
            f'{page.relative_to(root)}: becomes {name}, as {twin.relative_to(root)} does: '
            'give one of them another name'
        )
