"""Words of texts in any script, and which text fits a query best."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.ranking import MOST_WORDS, WordCounter, query_words, ranks, words_of

texts = st.text(max_size=60)


def ranked(query, *found):
    counter = WordCounter(query_words(query))
    return ranks([counter.count(text) for text in found])


def test_words_are_folded_whatever_their_script():
    assert words_of("Ein GROSSER Straßenzug, no_2!") == ["ein", "grosser", "strassenzug", "no", "2"]
    assert words_of("\uff21\uff22 ﬁre") == ["ab", "fire"]
    assert words_of("梯子 near 栅栏") == ["梯", "子", "near", "栅", "栏"]


def test_little_words_are_left_out_unless_there_are_no_others():
    assert query_words("someone with a ladder near the fence") == ("ladder", "near", "fence")
    assert query_words("who is it?") == ("who", "is", "it")
    assert query_words("?! -") == ()
    assert len(query_words(" ".join(f"w{n}" for n in range(100)))) == MOST_WORDS


def test_a_rare_word_counts_for_more_than_a_frequent_one_and_a_whole_one_for_more_than_a_beginning():
    common = ["a truck at the dock"] * 8
    rank = ranked("truck ladder", *common, "a ladder at the dock", "a cat")
    assert rank[8] > rank[0] > 0 == rank[9]
    whole, alike, neither = ranked("truck", "one truck", "two trucks", "one car")
    assert whole > alike > 0 == neither
    assert ranked("cat", "a category") == [0.0]


def test_a_word_in_a_short_text_counts_for_more():
    short, long = ranked("ladder", "a ladder", "a ladder " + "and much else " * 20)
    assert short > long > 0


@given(texts, st.lists(texts, max_size=8))
def test_a_text_has_a_rank_exactly_if_it_has_a_word_of_the_query(query, found):
    counter = WordCounter(query_words(query))
    counts = [counter.count(text) for text in found]
    for count, rank in zip(counts, ranks(counts), strict=True):
        assert rank >= 0
        assert (rank > 0) == count.matches


@given(texts, st.lists(texts, max_size=6), texts)
def test_more_of_a_word_never_lowers_a_rank(query, others, text):
    words = query_words(query)
    if words:
        counter = WordCounter(words)
        before, after = counter.count(text), counter.count(f"{text} {words[0]}")
        same_length = type(before)(after.length, before.worth)
        rest = [counter.count(one) for one in others]
        assert ranks([after, same_length, *rest])[0] >= ranks([after, same_length, *rest])[1]
