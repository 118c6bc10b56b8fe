"What a word is: ASCII as `\\w+` has it, every other script whole."
import re
import unicodedata

import pytest
from hypothesis import given, settings, strategies as st

from dacl_dr.data.answers import has_answer
from dacl_dr.data.tokeniser import mostly_unread, read_share, unspaced_script, words


def plain_words(text, identifiers=True):
    if identifiers: text = re.sub(r'(?<=[a-z0-9])(?=[A-Z])', ' ', text).replace('_', ' ')
    return re.findall(r'\w+', text.lower())


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40), st.booleans())
def test_ascii_words_are_what_they_were(text, identifiers):
    assert words(text, identifiers) == plain_words(text, identifiers)


@settings(max_examples=300, deadline=None)
@given(st.text('abcXYZ019 _-.äöüßéèêçñøåÄÖÜÉŁłčž½²³“”–—…\n', max_size=40), st.booleans())
def test_latin_words_are_what_they_were(text, identifiers):
    assert words(text, identifiers) == plain_words(text, identifiers)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_one_text_has_one_list_of_words_however_it_is_composed(text):
    assert words(unicodedata.normalize('NFD', text)) == words(unicodedata.normalize('NFC', text))


@pytest.mark.parametrize(
    'text, n',
    [('हिन्दी भाषा में', 3), ('e\u0301cole fe\u0302te', 2), ('சென்னை நகரம்', 2), ('שָׁלוֹם', 1), ('한국어 단어', 2)])
def test_marks_stay_inside_their_word(text, n): assert len(words(text)) == n


@pytest.mark.parametrize('script, text, part', [
    ('Han', '北京是中华人民共和国的首都', '首都'), ('Hiragana', 'わたしはねこです', 'ねこ'), ('Katakana', 'スーパーマーケット', 'マーケット'),
    ('Thai', 'ประเทศไทยอยู่ในเอเชีย', 'เอเชีย'), ('Lao', 'ນະຄອນຫຼວງວຽງຈັນ', 'ວຽງຈັນ'),
    ('Khmer', 'រាជធានីភ្នំពេញ', 'ភ្នំពេញ'), ('Burmese', 'မြန်မာနိုင်ငံ', 'နိုင်ငံ'),
])
def test_scripts_without_spaces_meet_in_pairs(script, text, part):
    assert unspaced_script(text) == script
    assert len(words(text)) > 2 and set(words(part)) <= set(words(text))
    assert has_answer([part], text + '。') and not has_answer([part[::-1] + part], text)


def test_a_word_beside_such_letters_is_whole():
    assert words('NHK紅白2024年のpython_code') == ['nhk', '紅白', '2024', '年の', 'python', 'code']
    assert words('水') == ['水'] and words('ｱｲ Ａ１ ﬁx') == ['アイ', 'a1', 'fix']


def test_texts_that_are_mostly_signs():
    assert mostly_unread(['👍👍 ok!', '∀∃∈∉ x', 'plain text', '中文', 'हिन्दी', '']) == [0, 1]
    assert read_share('हिन्दी में') == read_share('école') == 1
