"""Notebooks to the pages of the site, in _proc/, as the program nbdev_proc_nbs does.

    python tests/docs/process.py

Not that program: where Quarto is missing, it begins by installing that as root and this package with pip. In one
process, which imports everything once. At its end IPython collects the garbage of each notebook's shell, two minutes of
looking at the same objects, unless they are frozen.
"""
import gc

from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs

if __name__ == '__main__':
    refresh_quarto_yml()
    proc_nbs(n_workers=0)
    gc.freeze()
