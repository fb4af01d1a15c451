"""A topic as a person names it: `events`, or `nocturne.events.v1`. Pure."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from nocturne.cli.failures import bad_use
from nocturne.core.topics import TOPICS

SHORT_NAMES: Final = {topic.split(".")[1]: topic for topic in TOPICS}

TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)]


def topic_named(text: str) -> str:
    """The topic's full name; bad use if there is none such."""
    topic = SHORT_NAMES.get(text, text)
    if topic not in TOPICS:
        raise bad_use(f"TOPIC takes {', '.join(SHORT_NAMES)} or a full name, not {text[:80]!r}.")
    return topic
