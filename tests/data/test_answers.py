"DPR's answer match against a plain implementation of its published algorithm, and the two kinds of relevance."
import unicodedata

import numpy as np
import regex
from hypothesis import example, given, settings, strategies as st

from dacl_dr.core.settings import Reading
from dacl_dr.data.answers import answer_hits, has_answer, positives_of, tokens
from dacl_dr.data.formats import Context, Passage, Question, write_passages
from dacl_dr.data.store import open_passages

ALPHA_NUM, NON_WS = r'[\p{L}\p{N}\p{M}]+', r'[^\p{Z}\p{C}]'


def plain_tokens(text):
    return [
        m.group().lower()
        for m in regex.finditer(
            f'({ALPHA_NUM})|({NON_WS})', unicodedata.normalize('NFD', text),
            flags=regex.IGNORECASE | regex.UNICODE | regex.MULTILINE)]


def plain_has_answer(answers, text): # windows of tokens, as DPR compares them
    words = plain_tokens(text)
    return any(
        a and a == words[i:i + len(a)] for a in map(plain_tokens, answers) for i in range(len(words) - len(a) + 1))


words = st.text(st.sampled_from('aAbBéÉßİıﬁ१2 \t\n\0\u200b.-\'"’—$ñn\u0303'), max_size=14)


@settings(max_examples=600, deadline=None)
@given(st.lists(words, max_size=3), words, words)
@example(['a b'], 'xa b', '')
@example(['\0'], 'a\0b', '')
@example(['İ'], 'i\u0307', '')
def test_parity(answers, before, after):
    for text in (before + after, before + ' '.join(answers) + after, *answers):
        assert tokens(text) == plain_tokens(text)
        assert has_answer(answers, text) == plain_has_answer(answers, text), (answers, text)


def test_in_scripts_without_spaces_characters_are_tokens():
    assert tokens('在北京。') == plain_tokens('在北京。') == ['在北京', '。'] # DPR's rule, by which nothing is found
    assert has_answer(['北京'], '在北京。') and not plain_has_answer(['北京'], '在北京。')
    assert not has_answer(['京北'], '在北京。') and not has_answer(['97'], '日1972日') and has_answer(['1972'], '日1972日')


def test_the_title_does_not_count_and_any_answer_does(tmp_path):
    passages = [
        Passage('a', 'In 1968 it flew.', 'Apollo'), Passage('b', 'It is a crewed PROGRAM.', '1968'),
        Passage('c', 'In 1968.')]
    c = open_passages(write_passages(tmp_path/'psgs.tsv', passages), reading=Reading(tmp_path, show_progress=False))
    # the last answer has no token
    questions = [
        Question('q', (Context(passage_id='b'), Context(passage_id='zz')), ('1968', 'program')),
        Question('r', (Context(passage_id='c'), Context(passage_id='a')), ('1968',)), Question('s', (), ('\t',))]
    rows = np.array([[2, 1, 0], [0, 2, -1], [0, 1, 2]])
    assert answer_hits(rows, questions, c, show_progress=False).tolist() == [
        [True, True, True], [True, True, False], [False] * 3]
    assert [positives_of(q, c).tolist() for q in questions] == [[1], [2, 0], []]
