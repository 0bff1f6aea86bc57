"""Topic names: seven levels, checked segments."""

from __future__ import annotations

import pytest

from optima_bridge.topics import Topics, is_segment


def test_every_topic_has_its_class_at_the_same_level() -> None:
    topics = Topics("s1042", "pc1")
    made = [
        topics.event("front", "key"),
        topics.state("front", "key"),
        topics.alert("front", "fault"),
        topics.meta("bridge", "info"),
        topics.command("front", "rescan"),
        topics.response("ops", "0192"),
    ]
    assert made == [
        "optima/v1/s1042/pc1/evt/front/key",
        "optima/v1/s1042/pc1/state/front/key",
        "optima/v1/s1042/pc1/alert/front/fault",
        "optima/v1/s1042/pc1/meta/bridge/info",
        "optima/v1/s1042/pc1/cmd/front/rescan",
        "optima/v1/s1042/pc1/res/ops/0192",
    ]
    assert {topic.count("/") for topic in made} == {6}


@pytest.mark.parametrize("text", ["a", "front-2", "0", "-", "a" * 32])
def test_lower_case_digits_and_hyphens_are_a_segment(text: str) -> None:
    assert is_segment(text)


@pytest.mark.parametrize(
    "text", ["", "a" * 33, "Front", "a/b", "+", "#", "$SYS", "a b", "a_b", "a.b", "käse", "a\n", "a\x00", "１"]
)
def test_anything_else_is_not_a_segment_and_makes_no_topic(text: str) -> None:
    assert not is_segment(text)
    with pytest.raises(ValueError, match="is not of the form"):
        Topics(text, "pc1")
    with pytest.raises(ValueError, match="is not of the form"):
        Topics("s1042", text)
