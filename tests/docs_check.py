"""Is the documentation whole? The site's sources, checked without Quarto.

    python tests/docs_check.py [ROOT] [--static]

Links and anchors, cross-references, citations, `_quarto.yml`, names of pages, the program's commands in code
blocks, outputs of notebooks; then every notebook goes through nbdev, as for the site, and what it made is looked
at, unless --static is given. One line a fault, exit code 1 if there are any. The checks stand in tests/docs/.
"""
import argparse, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
from docs.commands import command_faults
from docs.pages import all_pages, site_pages
from docs.processed import processing_faults
from docs.settings import quarto_faults
from docs.sources import link_faults, notebook_faults, reference_faults, twin_faults, unused_entries


def static_faults(root):
    "All that can be seen without running anything."
    pages, site = all_pages(root), set(site_pages(root))
    faults = [*quarto_faults(root), *twin_faults(root)]
    for page in pages:
        for check in (link_faults, command_faults, notebook_faults): faults += check(root, page)
        if page in site: faults += reference_faults(root, page)
    return faults + unused_entries(root, site)

def main(argv=None):
    "Print the faults; 1 if there are any."
    p = argparse.ArgumentParser(description='Check the documentation without Quarto.')
    p.add_argument('root', nargs='?', type=Path, default=ROOT)
    p.add_argument('--static', action='store_true', help="don't send notebooks through nbdev")
    args = p.parse_args(argv)
    root = args.root.resolve()
    faults = static_faults(root) or ([] if args.static else processing_faults(root))
    whole = f'{len(all_pages(root))} pages: links, references, citations, commands and _quarto.yml are whole'
    print('\n'.join(faults or [whole + ('' if args.static else '; nbdev processes every notebook')]))
    return 1 if faults else 0


if __name__ == '__main__': sys.exit(main())
