"`_quarto.yml`: keys, files, theme, sidebar, and where \"View source\" leads."
import yaml

from .pages import site_pages, suggest

GENERATED = {'nbdev.yml'} # nbdev writes it from settings.ini
UNLISTED = {'404.qmd'} # pages that nobody is led to

def named(text): return {k: None for k in text.split()}

THEMES = set('''default cerulean cosmo cyborg darkly flatly journal litera lumen lux materia minty morph pulse
    quartz sandstone simplex sketchy slate solar spacelab superhero united vapor yeti zephyr'''.split())
NAVIGATION = named('text href section contents icon target rel id file url aria-label menu')
SIDEBAR = named('''id title subtitle logo logo-alt logo-href search tools contents style background foreground
    border alignment collapse-level pinned header footer''')
CARD = named('''title description image image-alt image-width image-height locale site-name card-style creator
    site''')
# keys of a Quarto website that are spelt as in its reference; None: anything below
KEYS = {
    'project': named('title type render output-dir lib-dir resources preview execute-dir pre-render post-render'),
    'format': {'html': named('''theme css toc toc-depth toc-location toc-title toc-expand code-tools code-copy
        code-fold code-overflow html-table-processing code-line-numbers code-summary highlight-style number-sections
        anchor-sections smooth-scroll link-external-icon link-external-newwindow fig-width fig-height fig-align
        fig-cap-location tbl-cap-location html-math-method mainfont monofont fontsize linestretch grid page-layout
        include-in-header include-before-body include-after-body respect-user-color-scheme lightbox''')},
    'website': named('''title description favicon site-url site-path repo-url repo-subdir repo-branch
        repo-link-target repo-link-rel issue-url repo-actions reader-mode google-analytics cookie-consent search
        navbar body-header body-footer margin-header margin-footer page-navigation back-to-top-navigation
        bread-crumbs page-footer image image-alt comments other-links code-links draft-mode drafts
        announcement''') | {'sidebar': SIDEBAR, 'open-graph': CARD, 'twitter-card': CARD},
    'execute': named('enabled eval echo output warning error include cache freeze daemon'),
    **named('''metadata-files bibliography csl link-citations citation-location lang crossref author date title
        profile'''),
}


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
        if isinstance(item, str):
            yield at, item
            continue
        yield from (f'{at}: {k}' for k in item if k not in NAVIGATION)
        if 'href' in item: yield at, item['href']
        if 'contents' in item: yield from hrefs(item['contents'], item.get('section') or item.get('text') or at)

def sidebar_faults(root, contents):
    "Pages that are not there, not listed, or listed twice."
    entries = [*hrefs(contents, 'sidebar')]
    for e in entries:
        if not isinstance(e, str): continue
        yield f'_quarto.yml: {e}: unknown key of a sidebar entry: {suggest(e.split(": ")[-1], NAVIGATION)}'
    listed = [e for e in entries if not isinstance(e, str)]
    there = {str(p.relative_to(root/'nbs')) for p in site_pages(root)}
    for section, href in listed:
        if href not in there: yield f'_quarto.yml: {section}: {href} is not in nbs/: {suggest(href, there)}'
    names = [href for _, href in listed]
    for page in sorted(there - UNLISTED):
        if page not in names:
            yield f'_quarto.yml: sidebar: nbs/{page} is not listed: put it under the section it belongs to'
        elif names.count(page) > 1:
            yield f'_quarto.yml: sidebar: nbs/{page} is listed more than once: keep one'

def files_named(data):
    "Every file that `_quarto.yml` names, with the key."
    html, site = (data.get('format') or {}).get('html') or {}, data.get('website') or {}
    card = site.get('open-graph') if isinstance(site.get('open-graph'), dict) else {}
    named = {
        'bibliography': data.get('bibliography'), 'csl': data.get('csl'),
        'metadata-files': data.get('metadata-files'), 'format.html.css': html.get('css'),
        'website.image': site.get('image'), 'website.favicon': site.get('favicon'),
        'website.open-graph.image': card.get('image'),
    }
    for key, value in named.items():
        yield from ((key, v) for v in ([value] if isinstance(value, str) else value or []))

def theme_faults(root, theme):
    "Themes that Quarto does not have, and that are no file either."
    themes = theme.values() if isinstance(theme, dict) else [theme]
    for name in (n for t in themes for n in ([t] if isinstance(t, str) else t or [])):
        if name in THEMES or (root/'nbs'/name).is_file(): continue
        yield f'_quarto.yml: format.html.theme: {name} is no theme of Quarto: {suggest(name, THEMES)}'

def view_source_faults(root, site):
    "\"View source\" that leads to a file that the repository has not: Quarto knows pages from nbs/ on."
    folder = site.get('repo-subdir') or '.'
    if 'source' not in (site.get('repo-actions') or []): return
    for page in site_pages(root):
        path = page.relative_to(root/'nbs')
        where = root/folder/path
        if where.is_file(): continue
        yield (
            f'_quarto.yml: website.repo-subdir: "View source" of nbs/{path} leads to {where.relative_to(root)}, '
            'which is not there: it must be nbs'
        )
        return # as wrong for all others

def quarto_faults(root):
    "What is wrong in `_quarto.yml`."
    try: data = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
    except yaml.YAMLError as e:
        yield f'_quarto.yml: line {e.problem_mark.line + 1}: not YAML: {e.problem}'
        return
    if (root/'nbs'/'_quarto.yml').resolve() != (root/'_quarto.yml').resolve():
        yield 'nbs/_quarto.yml: line 1: is no link to ../_quarto.yml: ln -sf ../_quarto.yml nbs/_quarto.yml'
    yield from unknown_keys(data, KEYS)
    for key, name in files_named(data):
        if name in GENERATED or (root/'nbs'/name).is_file(): continue
        yield f'_quarto.yml: {key}: {name} is not in nbs/: write it or take it out'
    site = data.get('website') or {}
    yield from theme_faults(root, ((data.get('format') or {}).get('html') or {}).get('theme'))
    yield from view_source_faults(root, site)
    yield from sidebar_faults(root, (site.get('sidebar') or {}).get('contents'))
