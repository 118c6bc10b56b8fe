"Packaging: everything is read from settings.ini, so that a fact is written once."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cfg = ConfigParser(delimiters=["="], interpolation=None)
cfg.read("settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    # the experiment notebooks travel inside the package, so that reports work outside a checkout
    packages=find_packages(include=["dacl_dr", "dacl_dr.*"]) + ["dacl_dr.experiments"],
    package_dir={"dacl_dr.experiments": "nbs/experiments"},
    package_data={"dacl_dr.experiments": ["*.ipynb", "settings/*/*.yaml", "results/*/*/study.csv", "results/*/*/run.json"]},
    install_requires=cfg["requirements"].split(),
    extras_require={key.removesuffix("_requirements"): cfg[key].split() for key in cfg if key.endswith("_requirements")},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["dacl_dr=dacl_dr._modidx:d"]},
    zip_safe=False,
)
