"""What every test may use: one real broker and one real database a process, on loopback.

Both are started only if a test asks for them. `make test` runs integration tests in two processes,
a file in one of them: most of a test is waiting. Neither takes the other's ports
(`nocturne.embedded.reservations`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import is_hypothesis_test, settings

if TYPE_CHECKING:
    # Imported where they are used, so that a unit test loads neither broker nor database.
    from nocturne.embedded.kafka import Broker
    from nocturne.embedded.postgres import Server

# How long one example takes says how busy the machine is, never whether the code is right.
settings.register_profile("nocturne", deadline=None)
settings.load_profile("nocturne")

EXAMPLES_DIVISOR: Final = int(os.environ.get("NOCTURNE_EXAMPLES_DIVISOR", "1"))
"""`make check` tries so much less of each property; `make test` tries all that it asks for."""
EXAMPLES_MIN: Final = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Divide each property's examples. They are numbers of their own, which no profile reaches."""
    if EXAMPLES_DIVISOR == 1:
        return
    found = [getattr(item, "obj", None) for item in items]
    for test in {id(one): one for one in found if is_hypothesis_test(one)}.values():
        # Hypothesis' own plugin for pytest sets a test's settings in this place.
        asked = test._hypothesis_internal_use_settings
        fewer = min(asked.max_examples, max(EXAMPLES_MIN, asked.max_examples // EXAMPLES_DIVISOR))
        test._hypothesis_internal_use_settings = settings(asked, max_examples=fewer)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with no topics: connect to `kafka_broker.bootstrap`, make topics of your own names
    or call `nocturne.deploy.topics.ensure`."""
    from tests.machines import make_broker, started

    from nocturne.embedded import kafka
    from nocturne.embedded.services import kafka_process

    broker = make_broker(tmp_path_factory.mktemp("kafka"))
    kafka.prepare(broker)
    with started(kafka_process(broker), broker.folder / "log"):
        yield broker


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the database `nocturne` and its three roles: `postgres_server.dsn(role)`."""
    from tests.machines import make_server, started

    from nocturne.embedded import postgres
    from nocturne.embedded.services import postgres_process

    server = make_server(tmp_path_factory.mktemp("postgres"))
    postgres.prepare(server)
    with started(postgres_process(server), server.passwords / "log"):
        postgres.ensure_roles(server)
        yield server
