"Commands of the program in code blocks and in running text."
import contextlib, io, re, shlex

from dacl_dr.cli.main import build_parser, underscored
from dacl_dr.core.errors import DaclError

from .pages import FENCE, blank, parts


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
        if command and command[0] == 'torchrun' and '--no-python' in command:
            command = command[command.index('--no-python') + 1:]
        if command and command[0] == 'dacl': yield command[1:]

def refused(words):
    "What the program says to a command; '' if it takes it."
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            build_parser().parse_args(underscored(words))
    except DaclError as e: return str(e)
    except SystemExit: pass # --help, --version
    return ''

def command_faults(root, page):
    "Commands that the program refuses, in code blocks and, but for what they leave out, in running text."
    for p in parts(page):
        if p.kind == 'code': continue
        for at, words in commands(p.text):
            said = refused(words)
            if said: yield p.fault(root, at, f"'dacl {' '.join(words)[:60]}' is refused", said)
        for m in re.finditer(r'`(dacl [^`\n]+)`', blank(FENCE, p.text)):
            words = shlex.split(m[1])[1:]
            said = refused(words)
            if not said or words[0].isupper() or re.search('are required|expected', said): continue
            yield p.fault(root, m.start(), f"'dacl {' '.join(words)[:60]}' is refused", said)
