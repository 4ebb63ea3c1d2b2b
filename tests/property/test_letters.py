"""Whatever a dead letter holds: it can be told, kept in a file and read back, byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from common.broker.dead_letters import Letter
from common.messages.events import Closed
from phedex_rucio import letters

BODIES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(
        [b'{"kind":"sync.site"}', b'{"kind":"sync.site","node":"T2_IT_Pisa","meta":{"id":"\\n"}}', b"[[", b""]
    ),
)


@given(st.lists(st.tuples(BODIES, st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=5))
def test_saved_and_loaded_it_is_the_same(parts: list[tuple[bytes, str, str]]) -> None:
    them = [Letter("sync.site.dead", 1, body, ident, error, 1, 0) for body, ident, error in parts]
    found = letters.loaded(b"".join(letters.saved(one, "me") for one in them))
    read = [item for _, item in found if isinstance(item, Letter)]
    assert [(one.body, one.message_id, one.queue) for one in read] == [
        (one.body, one.message_id, one.queue) for one in them
    ]
    assert [letters.summary(one).id for one in read] == [letters.summary(one).id for one in them]


@given(BODIES, st.text(max_size=20), st.text(max_size=20))
def test_anything_can_be_told_and_ends_its_cycle(body: bytes, ident: str, error: str) -> None:
    one = Letter("sync.blocks.dead", 1, body, ident, error, 1, 0)
    story, event = letters.story(one), letters.dropped(one, "me")
    assert story.summary.id == event.id != ""
    assert isinstance(event, Closed)
    assert letters.next_steps(story.summary)


@given(st.binary(max_size=500))
def test_any_file_is_read_line_by_line(content: bytes) -> None:
    for number, item in letters.loaded(content):
        assert number >= 1
        assert isinstance(item, Letter) or str(item).startswith(f"line {number}: ")
